"""The text of dual-purpose-classifier.md; `dual_purpose_classifier.pages` fills in what was measured."""

TEXT = """# The tables of DP-GAN-DPAC, made again

D. Chen, S. Liu, M. Ma, S. Nepal and C. Xu's dual-purpose auxiliary classifier (CVPR 2023) joins a classifier of real
and of generated images to GS-WGAN, and prints both ways of utility at epsilon 10. This page asks the same with an
epsilon that holds: 10 is 10 by the ledger of each run, and so is 1.

`{command}` {machine}.

## Result

{ours}
{missing}
* **Unit and budget.** Add or remove one image of 60,000; delta 1e-5; every answer of a hidden model is charged once.
* **g2r**: accuracy in % on the public test split of networks trained on {images} generated images. **r2g**: accuracy on
  these images of networks trained on the real training split; **of test**: on the real test split, as the document's
  code does. Networks: an MLP with 100 hidden units and the three-convolution CNN, five epochs, last one, no selection.
  r2g sees whether labels are right, not whether images vary: one perfect image a class has 100.
* **IS** is by a classifier of the domain, and **fd-gabor** a Frechet distance on fixed features: neither compares with
  the published scores, which are by networks of their own.
* **Seeds** reseed everything but the classifiers of real images. Minutes are of the processor. MNIST and Fashion-MNIST
  are development sets: defaults were chosen on a validation part of their training splits, and the claim covers a run,
  not that search.

{verdicts}

## Ablations

Of {ablated}. "start alone" is what the generator starts from, images of class moments that take half the budget;
nothing is learned from critics. "without start" is the published way, from a random generator.

{ablations}

As published, at a printed 10:

{published_ablations}

"not re-initialised" keeps a classifier from step to step, so a secret draw saves nothing any more; here it answers in
turn, and "full, in turn" is its counterpart. In the document it was charged like the others.

## What was published, and what it was bought with

{published}

{celeba}

These figures are of runs that printed 10. What follows from their constants, by `veilset claim`:

{claims}

So the rows of GS-WGAN and DP-GAN-DPAC above were not made at epsilon 10, nor at one epsilon: DP-GAN-DPAC's step
releases 2,000 rows with the noise of 32. Its lead over GS-WGAN in those tables is of a run that had far less noise, and
shows nothing about the classifier.

## Speed of hidden critics

Training many hidden critics in one vectorised pass, beside a loop over the same critics: processor time of one thread,
the best of several rounds, taken in turn. Peak memory is of a process that trains them so and holds a thousand.

{speeds}
"""
