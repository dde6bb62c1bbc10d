"""What `veilset selftest` measures of whole runs, searches and streams: themes like those of `veilset.audit.selftest`,
here because they import what lies above that folder.
"""
