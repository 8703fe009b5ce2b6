"""What the sources say, and the presets whose verdicts answer: the ledger's questions.

`python -m experiments.claims` reads them; docs/claims.md is made of them.
"""

from typing import NamedTuple


class Question(NamedTuple):
    """A sentence of a source, and the claims of a preset that test it.

    claims: patterns of their names, as a shell's, with blanks between. known: whether
    the answer was published before. absent: why there is no answer here, where none is.
    """

    says: str
    preset: str  # as "svag:digits"
    claims: str
    known: bool = False
    absent: str = ""


class Source(NamedTuple):
    """A paper: its authors and year, its title and where it is, what it says."""

    name: str
    where: str
    questions: tuple[Question, ...]


SOURCES = (
    Source(
        "Malladi, Lyu, Panigrahi, Arora 2022",
        "*On the SDEs and Scaling Rules for Adaptive Gradient Algorithms*, "
        "arXiv 2205.10287",
        (
            Question(
                "The moments of RMSprop and Adam differ from those of their SDEs by "
                "O(η²), and those of SVAG(ℓ) by O(1/ℓ²).",
                "svag:quadratic",
                "*_error_falls_as_*",
                known=True,
            ),
            Question(
                "Adam's loss follows its SDE, and SVAG(ℓ) does at moderate ℓ.",
                "svag:digits",
                "discrete_matches_sde *_matches_sde *_above_* *_not_below_*",
                known=True,
            ),
            Question(
                "So does RMSprop's.",
                "svag:digits_rmsprop",
                "discrete_matches_sde *_matches_sde *_above_* *_not_below_*",
                known=True,
            ),
            Question(
                "Adam at κ times the batch follows the base run under lr·√κ, "
                "1−β → κ(1−β), ε/√κ.",
                "scaling:digits",
                "rule_holds_at_*",
                known=True,
            ),
            Question(
                "Other rules do worse: lr·κ, lr·√κ alone, nothing changed.",
                "scaling:digits",
                "nearer_than_*",
                known=True,
            ),
            Question(
                "The rule holds for RMSprop.",
                "scaling:digits_rmsprop",
                "rule_holds_at_* nearer_than_*",
                known=True,
            ),
            Question(
                "It holds for a causal transformer.",
                "scaling:lm",
                "rule_holds_at_* nearer_than_*",
                known=True,
            ),
            Question(
                "It holds for a masked one.",
                "scaling:lm_masked",
                "rule_holds_at_* nearer_than_*",
                known=True,
            ),
            Question(
                "How far it holds can be foreseen from one small run.",
                "scaling:digits",
                "foreseen_at_*",
            ),
            Question(
                "It holds where the noise has heavy tails.",
                "scaling:digits_heavy_tails",
                "rule_holds_at_* sqrt_lr_only_holds_at_*",
            ),
            Question(
                "It holds where classes are out of balance.",
                "scaling:digits_imbalanced",
                "rule_holds_at_*",
            ),
        ),
    ),
    Source(
        "Compagnoni et al. 2024",
        "*Adaptive Methods through the Lens of SDEs*, arXiv 2411.15958",
        (
            Question(
                "The SDE of Adam has the mean gradient's share in v.",
                "svag:digits",
                "discrete_matches_sde_with_signal",
                known=True,
            ),
        ),
    ),
    Source(
        "Li, Malladi, Arora 2021",
        "*On the Validity of Modeling SGD with Stochastic Differential Equations "
        "(SDEs)*, arXiv 2102.12470",
        (
            Question(
                "SVAG(ℓ) of SGD approaches its SDE, and SGD follows it.",
                "svag:digits_sgd",
                "discrete_matches_sde *_matches_sde",
                known=True,
            ),
            Question(
                "Gaussian noise in place of the batch's gives the same loss.",
                "svag:digits_sgd",
                "discrete_matches_gaussian",
                known=True,
            ),
            Question(
                "Momentum follows its SDE.",
                "svag:digits_momentum",
                "discrete_matches_sde *_matches_sde",
            ),
            Question(
                "Under lr·κ SGD at κ times the batch follows the base run.",
                "scaling:digits_sgd",
                "rule_holds_at_*",
                known=True,
            ),
            Question(
                "The rule breaks for normalised nets where the gradient reaches the "
                "noise.",
                "scaling:digits_normalised",
                "rule_holds_at_* foreseen_at_*",
                known=True,
            ),
        ),
    ),
    Source(
        "Geiping, Goldblum, Pope, Moeller, Goldstein 2022",
        "*Stochastic Training is Not Necessary for Generalization*, arXiv 2109.14119",
        (
            Question(
                "Full batches generalise worse at SGD's settings; more steps, clipping "
                "and a gradient penalty make up for it.",
                "fullbatch:digits_table",
                "longer_above_full_batch clipped_above_longer penalty_lowers_loss*",
                known=True,
            ),
            Question(
                "The strongest row is as good as SGD.",
                "fullbatch:digits_table",
                "strong_is_as_good_as_sgd",
                known=True,
            ),
            Question(
                "New blocks at each step lower the loss further.",
                "fullbatch:digits_table",
                "new_blocks_lower_loss",
                known=True,
            ),
        ),
    ),
    Source(
        "Lewkowycz, Bahri, Dyer, Sohl-Dickstein, Gur-Ari 2020",
        "*The large learning rate phase of deep learning: the catapult mechanism*, "
        "arXiv 2003.02218",
        (
            Question(
                "Between 2/λ and 4/λ the loss shoots up and comes back, at a flatter "
                "place.",
                "catapults:toy",
                "window_* inside_it_*",
                known=True,
            ),
        ),
    ),
    Source(
        "Zhu, Liu, Radhakrishnan, Belkin 2024",
        "*Catapults in SGD: spikes in the training loss and their impact on "
        "generalization through feature learning*, arXiv 2306.04815",
        (
            Question(
                "Rates above critical give spikes, after which the kernel's norm is "
                "lower.",
                "catapults:cyclic",
                "*",
                known=True,
            ),
            Question(
                "Smaller batches give more catapults.",
                "catapults:batch",
                "smaller_batch_gives_more_catapults_at_*",
                known=True,
            ),
            Question(
                "Smaller batches end flatter.",
                "catapults:batch",
                "smaller_batch_ends_flatter_at_*",
            ),
            Question(
                "Catapults align the features with the target, and lower the error.",
                "catapults:features",
                "*_pulses_raise_* *_pulses_lower_*",
                known=True,
            ),
            Question(
                "Catapults raise the accuracy of SGD on images.",
                "catapults:digits",
                "catapults_raise_sgd_* no_separation_* sgd_gains_more_*",
                known=True,
            ),
            Question(
                "Of SGD, AdaGrad and Adam, SGD is the worst and Adam the best, and "
                "catapults worsen AdaGrad.",
                "catapults:digits",
                "sgd_worst_* adam_best_* catapults_worsen_adagrad_*",
                known=True,
            ),
            Question(
                "What helps is not a net that starts at zero.",
                "catapults:control",
                "*",
            ),
            Question(
                "AdaGrad's catapults die out as its critical rate grows.",
                "catapults:adagrad",
                "catapults_of_* equal_peaks_* and_leave_* *critical*",
                known=True,
            ),
        ),
    ),
    Source(
        "Cohen, Kaur, Li, Kolter, Talwalkar 2021; Cohen et al. 2022",
        "*Gradient Descent on Neural Networks Typically Occurs at the Edge of "
        "Stability*, arXiv 2103.00065; *Adaptive Gradient Methods at the Edge of "
        "Stability*, arXiv 2207.14484",
        (
            Question(
                "The sharpness rises to the optimizer's threshold, and stays there.",
                "catapults:edge",
                "*_stays_at_threshold *_rises_to_it",
                known=True,
            ),
        ),
    ),
    Source(
        "Li, Lyu, Arora 2020",
        "*Reconciling Modern Deep Learning with Traditional Optimization Analyses: The "
        "Intrinsic Learning Rate*, arXiv 2010.02916",
        (
            Question(
                "The effective lr at equilibrium follows from lr, decay and noise.",
                "intrinsic_lr:equilibrium",
                "*",
                known=True,
            ),
            Question(
                "Only the product of lr and decay lasts.",
                "intrinsic_lr:same_product",
                "*",
                known=True,
            ),
            Question(
                "After a drop of lr losses fall at once and rise again.",
                "intrinsic_lr:decay",
                "*",
                known=True,
            ),
            Question(
                "Only the last lr matters, if it lasts.",
                "intrinsic_lr:only_the_last",
                "*",
                known=True,
            ),
            Question(
                "At equilibrium nets are alike as functions, not in their weights; "
                "averages of weights are better.",
                "intrinsic_lr:swa",
                "*",
                known=True,
            ),
            Question(
                "Full-batch descent with weight decay is not gradient flow.",
                "intrinsic_lr:full_batch",
                "*",
                known=True,
            ),
            Question(
                "With momentum the intrinsic lr is lr·λ/(1−β).",
                "intrinsic_lr:momentum",
                "*",
            ),
        ),
    ),
    Source(
        "Barrett, Dherin 2021; Smith, Dherin, Barrett, De 2021",
        "*Implicit Gradient Regularization*, arXiv 2009.11162; *On the Origin of "
        "Implicit Regularization in SGD*, arXiv 2101.12176",
        (
            Question(
                "Descent follows the flow of L + η/4‖∇L‖² to one order more.",
                "descent:gd_2d",
                "*",
                known=True,
            ),
        ),
    ),
    Source(
        "Loshchilov, Hutter 2019",
        "*Decoupled Weight Decay Regularization*, arXiv 1711.05101",
        (
            Question(
                "For SGD, L2 and weight decay are the same; for Adam they are not, and "
                "decay is better.",
                "descent:l2_vs_weight_decay",
                "*",
                known=True,
            ),
        ),
    ),
)
