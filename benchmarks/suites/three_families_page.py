"""The text of three-families.md; `three_families.pages` fills in what was measured."""

TEXT = """# The comparison of Gandhi and Viradiya, made again

A. Gandhi and P. Viradiya, *Privacy-Preserving Generative Models: A Comparative Analysis* (University of Toronto;
code: pinakin7/Project-2412), trained a conditional VAE, a conditional GAN and a diffusion model on MNIST, without
and with DP-SGD at epsilon 5, 10 and 40 (delta 1e-5), and judged each by a Frechet distance on 1,000 generated
images, 100 a class. This page repeats the question with methods whose claim recomputes, and says what the published
numbers measured.

`{command}` {machine}.

## Result

Columns "{few}" use 1,000 images as published, columns "{many}" ten times as many, drawn from the same fit.

{table}
{missing}
![Accuracy and Frechet distance over epsilon for the three methods, with error bars over seeds]({plot})

What the smallest budget costs, beside the same code without noise ({many} images): a cost within its deviation is none.

{price}

* **Unit and budget.** Add or remove one image of 60,000; delta 1e-5; every answer about private images is charged.
  At epsilon infinity the same code clips and adds no noise; that row is no claim.
* **CNN**: accuracy in % on the public test split of the three-convolution network trained on that many synthetic
  images: 10 epochs, last epoch, no selection. Mean and sample standard deviation over seeds; a seed reseeds
  synthesizer and classifier.
* **fd-gabor**: Frechet distance on 208 fixed Gabor features against the 10,000 test images. It is not FID, and not
  the 64-dimensional FID of the document. It grows when images are few: real test images, the same number a class,
  score {real} against the other test images. So columns of different numbers of images are not compared with each
  other.
* **Minutes** are of one core beside another busy one, without evaluation; **memory** is the peak of the process
  until the images were drawn.
* **dp-cvae:gradients** is a conditional VAE whose only questions are clipped gradients, as in the document.
  **dp-cvae** also pays for sums (class means, principal directions, Gaussians of codes), which carry most of its
  quality; it is here to show what the gradients are worth.
* **Settings** are the methods' defaults, the same for every epsilon up to what follows from it; they are not the
  published networks. MNIST is a development set: they were chosen on a validation part of its training split, and
  the claim covers a run, not that search.

## What was published

The last column of `output/fid_scores/scores.csv` in the authors' repository; we read it, and have not run their
code.

{published}

The three values of a model under DP differ by less than 1 %, and all six are *better* than without DP. A distance
that does not notice whether epsilon is 5 or 40 does not measure a trade-off. From the text and the code:

1. **The distance.** It is torchmetrics' FID with `feature=64`: the 64 channels after the first block of Inception,
   which see edges and texture, not digits. Usual FID has 2,048 features; values of the two compare with nothing of
   each other. It is updated with batches of 100 images, and the table is the last *cumulative* value, over 1,000
   images. A Frechet distance of so few images is biased upwards, by an amount that depends on the model.
2. **No clipping in GAN and diffusion.** Their runs under "DP" clamp the *weights* (to 2.5 in the GAN; to 1.5 in the
   diffusion notebook and 0.5 in its module) before the backward pass and add noise to the gradient of the whole
   batch. Without a bound on one image's gradient no noise gives a guarantee. The noise hook is a closure over the
   loop's variable, so every tensor gets noise of the shape of the *last* parameter, broadcast: for a scalar bias,
   one number for the whole tensor. The GAN also generates with the labels of the private batch. No accountant is
   called. Neither model is private at any epsilon, so their rows cannot show a price of privacy.
3. **Only the CVAE imports a DP library**, and its saved cells do not show the private training call.
4. **Labels of the budget.** The code fixes noise multipliers 1.35, 1.1 and 0.75 (0.79 in the diffusion notebook) for
   epsilon 5, 10 and 40. With clipping and Poisson sampling at 128 of 60,000, 300 epochs would cost epsilon 2.85,
   3.94 and 8.80, and 50 epochs 1.06, 1.46 and 3.25: the three budgets lie closer together, and lower, than their
   names.
5. **The diffusion model is unconditional** in the code, although 100 images a class are asked for, and the only
   value that we found for it is the one without DP.
6. **Membership inference.** Its members are the 60,000 training images and its non-members 1,000 (GAN) or 6,000
   (CVAE) *generated* images, so the attack tells real from generated. Its logistic regression reaches an AUC of 1.00
   for the CVAE with and without DP, and 0.83 to 0.85 for the GAN "under DP", more than the 0.80 without. The authors
   suspected the library or overfitting; the cause is the set of non-members. Images of the same distribution that
   were never trained on must take their place.

## Why ours differ

* Every image's gradient is clipped before it is summed, noise enters once a step, batches are Poisson samples, and
  the receipt's epsilon can be recomputed from the ledger. So noise grows as epsilon falls, and a method has to show
  it.
* Accuracy of a classifier trained on the images notices wrong labels and missing variety, which a distance on
  first-layer features does not.
* Labels are part of the record that is protected. No private label or class count is used when images are generated:
  they get equal numbers of every class.
* Three seeds with error bars: a difference smaller than the bars is none.
"""
