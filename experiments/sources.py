"""What the sources say, and the presets whose verdicts answer: the ledger's questions.

`python -m experiments.claims` reads them; docs/claims.md is made of them.
"""

from typing import NamedTuple


class Question(NamedTuple):
    """A sentence of a source, and the claims of a preset that test it.

    claims: patterns of their names, as a shell's, with blanks between. known: whether
    an answer was published before.
    """

    says: str
    preset: str  # as "svag:digits"
    claims: str
    known: bool = False


class Source(NamedTuple):
    """A paper: its authors and year, its title and where it is, what it says."""

    name: str
    where: str
    questions: tuple[Question, ...]


SOURCES = (
    # ---- adaptive methods
    Source(
        "Malladi, Lyu, Panigrahi, Arora 2022",
        "*On the SDEs and Scaling Rules for Adaptive Gradient Algorithms*, arXiv "
        "2205.10287",
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
                "RMSprop's does, too.",
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
                "Whole runs with BatchNorm end alike, within 3 points of accuracy.",
                "svag:whole_batchnorm",
                "*_ends_alike",
                known=True,
            ),
            Question(
                "So do those of a VGG net under RMSprop.",
                "svag:whole_vgg",
                "*_ends_alike",
                known=True,
            ),
            Question(
                "So do those with GroupNorm, and the SDE.",
                "svag:whole_groupnorm",
                "*_ends_alike sde_* ell2_ends_as_sde",
                known=True,
            ),
            Question(
                "So do those without normalization, and the SDE.",
                "svag:whole_plain",
                "*_ends_alike sde_* ell2_ends_as_sde",
                known=True,
            ),
            Question(
                "So do whole runs of a causal transformer, within .5 of perplexity.",
                "svag:whole_causal",
                "*_ends_alike",
                known=True,
            ),
            Question(
                "So do those of a masked one.",
                "svag:whole_masked",
                "*_ends_alike",
                known=True,
            ),
            Question(
                "Whole runs are alike at all times, not at their ends alone.",
                "svag:whole_batchnorm",
                "*_alike_throughout",
                known=True,
            ),
            Question(
                "They are for a causal transformer.",
                "svag:whole_causal",
                "*_alike_throughout",
                known=True,
            ),
        ),
    ),
    Source(
        "Reviews of Malladi et al. 2022",
        "OpenReview, NeurIPS 2022: extensions that were asked for",
        (
            Question(
                "How far the rule holds can be foreseen from one small run.",
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
            Question(
                "Rare classes have more than their share of v, and weighting them is "
                "noisier than drawing them more often.",
                "scaling:rare_classes",
                "rare_have_more_of_v weights_are_noisier_than_draws",
            ),
            Question(
                "The rule holds for rare classes and for common ones, as the data are, "
                "oversampled, weighted, and with a larger batch.",
                "scaling:rare_classes",
                "*_rare_hold_at_* *_common_hold_at_*",
            ),
            Question(
                "It is further off for rare classes, and remedies bring them nearer.",
                "scaling:rare_classes",
                "*_further_off_* *_bring_rare_nearer_*",
            ),
            Question(
                "A second moment of the noise alone keeps √κ where the signal rules.",
                "scaling:digits_descent_centred",
                "rule_holds_at_* foreseen_at_* svag2_*",
            ),
            Question(
                "Rows of rare tokens are ruled by noise, and have more of v.",
                "scaling:rare_rows",
                "rare_have_*",
            ),
            Question(
                "The rule is further off on rare rows than on frequent ones.",
                "scaling:rare_rows",
                "rare_*_further_off_at_*",
            ),
            Question(
                "It holds for frequent tokens and for rare ones.",
                "scaling:rare_rows",
                "*_loss_holds_at_* *_moved_holds_at_*",
            ),
            Question(
                "Noise foretells which rows lag.",
                "scaling:rare_rows",
                "frequent_foreseen_to_lag_more_at_*",
            ),
            Question(
                "Batches can be scheduled by the noise: the critical batch grows along "
                "a run, and follows N/G.",
                "batches:critical",
                "critical_batch_*",
            ),
            Question(
                "A schedule by it keeps the loss, and a fixed batch does not.",
                "batches:critical",
                "schedule_keeps_the_loss fixed_batch_ends_higher",
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
        "Wang, Aitchison 2024, of batches",
        "*Batch size invariant Adam*, arXiv 2402.18824",
        (
            Question(
                "With v from micro-batches Adam holds under lr·κ without large noise.",
                "scaling:digits_descent",
                "invariant_holds_at_*",
                known=True,
            ),
        ),
    ),
    Source(
        "You et al. 2020",
        "*Large Batch Optimization for Deep Learning: Training BERT in 76 minutes*, "
        "arXiv 1904.00962",
        (
            Question(
                "LAMB at κ times the batch follows lr·κ, with memories in samples, and "
                "not the paper's lr·√κ.",
                "scaling:families",
                "lamb_*",
            ),
            Question(
                "It does on text.",
                "scaling:families_text",
                "lamb_*",
            ),
        ),
    ),
    Source(
        "Papers of other optimizers",
        "of which few say what the batch changes: Duchi et al. 2011 (AdaGrad); "
        "Bernstein et al. 2018, arXiv 1802.04434 (signs); Chen et al. 2023, arXiv "
        "2302.06675 (Lion); Pagliardini et al. 2024, arXiv 2409.03137 (AdEMAMix); "
        "Defazio et al. 2024, arXiv 2405.15682 (schedule-free); Jordan et al. 2024 "
        "(Muon); Shazeer and Stern 2018, arXiv 1804.04235 (Adafactor); Zhang et al. "
        "2024, arXiv 2406.16793 (Adam-mini); Yuan et al. 2024, arXiv 2411.10438 (MARS)",
        (
            Question(
                "Muon and Signum, whose steps have one length, follow lr·κ.",
                "scaling:families",
                "muon_* signum_*",
            ),
            Question(
                "Adam and RMSprop follow lr·√κ.",
                "scaling:families",
                "adam_* rmsprop_*",
                known=True,
            ),
            Question(
                "So do AdEMAMix, Adam with v centred, and schedule-free Adam.",
                "scaling:families",
                "ademamix_* centredadam_* schedulefreeadam_*",
            ),
            Question(
                "SGD and invariant Adam follow lr·κ.",
                "scaling:families",
                "sgd_* invariantadam_*",
                known=True,
            ),
            Question(
                "So do momentum, with its memory in samples, and schedule-free SGD.",
                "scaling:families",
                "momentum_* schedulefreesgd_*",
            ),
            Question(
                "AdaGrad follows lr as it is.",
                "scaling:families",
                "adagrad_*",
            ),
            Question(
                "Lion and SignSGD, whose rules need Gaussian noise, follow theirs.",
                "scaling:families",
                "lion_* signsgd_*",
            ),
            Question(
                "Adafactor, Adam-mini and MARS, whose v is another, follow lr·√κ.",
                "scaling:families_other_v",
                "*",
            ),
            Question(
                "They do on text.",
                "scaling:families_other_v_text",
                "*",
            ),
            Question(
                "Each family follows its rule on text.",
                "scaling:families_text",
                "*_rule_holds_at_*",
            ),
            Question(
                "Its rule is nearer there than lr·√κ and lr·κ, where they are not it.",
                "scaling:families_text",
                "*_nearer_than_*",
            ),
        ),
    ),
    Source(
        "Marek, Lotfi, Somasundaram, Wilson, Goldblum 2025",
        "*Small Batch Size Training for Language Models: When Vanilla SGD Works, and "
        "Why "
        "Gradient Accumulation Is Wasteful*, arXiv 2507.07101",
        (
            Question(
                "A b2 whose half-life in tokens stays ends lower than one that stays.",
                "scaling:half_life",
                "v_alone_ends_below_neither_at_*",
                known=True,
            ),
            Question(
                "Small batches do as well per token as large ones.",
                "scaling:half_life",
                "base_batch_ends_no_higher_than_*",
                known=True,
            ),
            Question(
                "With b2's half-life in tokens, the best lr grows more slowly than √κ.",
                "scaling:half_life",
                "best_lr_of_v_grows_below_root",
            ),
            Question(
                "The whole rule keeps the curve, and b2 in tokens alone does not.",
                "scaling:half_life",
                "*_keeps_the_curve_at_* rule_nearer_than_v_alone_at_*",
            ),
            Question(
                "With lr tuned, b2 in tokens alone ends lower than the whole rule.",
                "scaling:half_life",
                "v_alone_ends_below_both_at_*",
            ),
            Question(
                "With lr tuned, Adam's half-lives in tokens end lower than in steps.",
                "scaling:optimum_adam",
                "samples_end_below_steps_at_*",
                known=True,
            ),
            Question(
                "So do Muon's.",
                "scaling:optimum_muon",
                "samples_end_below_steps_at_*",
            ),
            Question(
                "So do Lion's.",
                "scaling:optimum_lion",
                "samples_end_below_steps_at_*",
            ),
            Question(
                "So do those of SGD with momentum.",
                "scaling:optimum_sgd",
                "samples_end_below_steps_at_*",
            ),
        ),
    ),
    Source(
        "Li, Zhao, Zhang, Sun et al. 2024",
        "*Surge Phenomenon in Optimal Learning Rate and Batch Size Scaling*, arXiv "
        "2405.14578",
        (
            Question(
                "The best lr of Adam rises with the batch at first, as its root.",
                "scaling:optimum_adam",
                "best_lr_rises_at_first best_lr_grows_as_the_rule",
                known=True,
            ),
            Question(
                "It falls again where the batch is beyond the noise scale.",
                "scaling:optimum_adam",
                "best_lr_falls_at_last",
                known=True,
            ),
            Question(
                "So does Lion's.",
                "scaling:optimum_lion",
                "best_lr_rises_at_first best_lr_falls_at_last",
                known=True,
            ),
            Question(
                "The run under Adam's rule is the base run, and is the best.",
                "scaling:optimum_adam",
                "rule_keeps_the_curve_at_* rule_is_the_best_at_*",
            ),
        ),
    ),
    Source(
        "McCandlish, Kaplan, Amodei et al. 2018; Merrill et al. 2025",
        "*An Empirical Model of Large-Batch Training*, arXiv 1812.06162; *Critical "
        "Batch Size Revisited*, arXiv 2505.23971",
        (
            Question(
                "The best lr of SGD grows as the batch below the noise scale.",
                "scaling:optimum_sgd",
                "best_lr_rises_at_first best_lr_grows_as_the_rule",
                known=True,
            ),
            Question(
                "Up to a critical batch Adam's lowest loss at equal samples stays.",
                "scaling:optimum_adam",
                "best_loss_is_kept_at_*",
                known=True,
            ),
            Question(
                "So does SGD's.",
                "scaling:optimum_sgd",
                "best_loss_is_kept_at_*",
                known=True,
            ),
            Question(
                "So does Lion's.",
                "scaling:optimum_lion",
                "best_loss_is_kept_at_*",
            ),
        ),
    ),
    Source(
        "Shah et al. 2025",
        "*Practical Efficiency of Muon for Pretraining*, arXiv 2505.02222",
        (
            Question(
                "Muon keeps its loss at equal samples at large batches.",
                "scaling:optimum_muon",
                "best_loss_is_kept_at_*",
                known=True,
            ),
            Question(
                "Its best lr grows as lr·κ for matrices, lr·√κ for the rest.",
                "scaling:optimum_muon",
                "best_lr_grows_as_the_rule best_lr_rises_at_first",
            ),
            Question(
                "The run under this rule is the base run, and is the best.",
                "scaling:optimum_muon",
                "rule_keeps_the_curve_at_* rule_is_the_best_at_*",
            ),
        ),
    ),
    Source(
        "Smith, Kindermans, Ying, Le 2018",
        "*Don't Decay the Learning Rate, Increase the Batch Size*, arXiv 1711.00489",
        (
            Question(
                "A batch that grows gives the curve of an lr that falls: SGD, × 2 for "
                "each halving.",
                "batches:sgd",
                "*",
                known=True,
            ),
            Question(
                "The difference is of the order of lr, exactly, on a regression.",
                "batches:regression",
                "*",
            ),
            Question(
                "It does for Adam, × 4 for each halving, and memories along with it.",
                "batches:adam",
                "*",
            ),
            Question("It does for RMSprop.", "batches:rmsprop", "*"),
            Question("It does on text.", "batches:lm", "*"),
        ),
    ),
    # ---- SGD
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
        "Li, Tai, E 2017",
        "*Stochastic Modified Equations and Adaptive Stochastic Gradient Algorithms*, "
        "arXiv 1511.06251",
        (
            Question(
                "With the drift −∇(f + η/4‖∇f‖²) the SDE has SGD's moments to one "
                "order more.",
                "descent:modified_sde",
                "mean_* square_* *_has_its_*",
                known=True,
            ),
            Question(
                "It is nearer to SGD in the long run, too.",
                "descent:modified_sde",
                "modified_is_nearer_in_the_long_run",
            ),
        ),
    ),
    Source(
        "Barrett, Dherin 2021; Smith, Dherin, Barrett, De 2021",
        "*Implicit Gradient Regularization*, arXiv 2009.11162; *On the Origin of "
        "Implicit Regularization in SGD*, arXiv 2101.12176",
        (
            Question(
                "Descent follows the flow of L + η/4‖∇L‖² to one order more, and an "
                "epoch that of the batches' penalty.",
                "descent:gd_2d",
                "*",
                known=True,
            ),
        ),
    ),
    # ---- full batches
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
            Question(
                "Without augmentation the strong recipe is better than SGD, and as "
                "good as "
                "SGD tuned for it.",
                "fullbatch:digits_plain",
                "*",
                known=True,
            ),
            Question(
                "On frozen copies the strong recipe is as good as SGD.",
                "fullbatch:digits_frozen",
                "*",
                known=True,
            ),
            Question(
                "Warm-up and clip each make a large lr stable.",
                "fullbatch:digits_stabilisers",
                "*",
            ),
        ),
    ),
    Source(
        "A replication of Geiping et al. 2022",
        "by others, of a small net on MNIST and Fashion-MNIST",
        (
            Question(
                "The full batch needs 20 to 60 times the epochs.",
                "fullbatch:digits_replication",
                "5_steps* 20_times* 60_times*",
                known=True,
            ),
            Question(
                "A tuned clip gains, and the penalty nothing.",
                "fullbatch:digits_replication",
                "clip_helps penalty_does_nothing",
                known=True,
            ),
        ),
    ),
    Source(
        "Amir, Koren, Livni 2021; Amir, Carmon, Koren, Livni 2021",
        "*SGD Generalizes Better Than GD (And Regularization Doesn't Help)*, arXiv "
        "2102.01117; *Never Go Full Batch (in Stochastic Convex Optimization)*, arXiv "
        "2107.00469",
        (
            Question(
                "On some convex functions full batches need ε⁻⁴ steps, and SGD ε⁻².",
                "fullbatch:gd_convex",
                "full_batch_takes_* sgd_*",
                known=True,
            ),
            Question(
                "With SGD's lr and steps descent keeps an excess risk that does not "
                "fall.",
                "fullbatch:gd_convex",
                "full_batch_fits_* full_batch_overfits_*",
                known=True,
            ),
            Question(
                "That is so while examples are few for the dimension.",
                "fullbatch:gd_convex",
                "few_examples_* many_examples_*",
                known=True,
            ),
        ),
    ),
    Source(
        "Shallue, Lee, Antognini, Sohl-Dickstein, Frostig, Dahl 2019",
        "*Measuring the Effects of Data Parallelism on Neural Network Training*, arXiv "
        "1811.03600",
        (
            Question(
                "Twice the batch halves the steps at first, and saves none at last, "
                "where lr is tuned.",
                "fullbatch:batches",
                "*_scales_perfectly_to_* *_has_a_floor *_not_slower_at_*",
                known=True,
            ),
            Question(
                "Momentum is SGD at small batches, and scales further.",
                "fullbatch:batches",
                "momentum_is_sgd_at_the_smallest momentum_scales_further",
                known=True,
            ),
            Question(
                "The rules for lr serve at small factors, and break at the full batch.",
                "fullbatch:batches",
                "*_rule_serves_at_* *_rule_breaks_at_*",
            ),
            Question(
                "To one training loss the full batch takes more examples than small "
                "ones.",
                "fullbatch:batches",
                "*_takes_more_at_*",
                known=True,
            ),
        ),
    ),
    Source(
        "Keskar, Mudigere, Nocedal, Smelyanskiy, Tang 2017",
        "*On Large-Batch Training for Deep Learning: Generalization Gap and Sharp "
        "Minima*, arXiv 1609.04836; of the ratio, Jastrzębski et al. 2017, *Three "
        "Factors Influencing Minima in SGD*, arXiv 1711.04623",
        (
            Question(
                "Small batches and large lr end flatter.",
                "fullbatch:batches_sharpness",
                "*_is_flatter full_batch_lr_*",
                known=True,
            ),
            Question(
                "Flatter ends are better.",
                "fullbatch:batches_sharpness",
                "*_is_better",
                known=True,
            ),
            Question(
                "The ratio of lr and batch decides the curvature.",
                "fullbatch:batches_sharpness",
                "batch_*_as_batch_*",
                known=True,
            ),
        ),
    ),
    # ---- catapults
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
            Question(
                "On a net the loss shoots up from 2/λ_max on, λ_max of the kernel.",
                "catapults:threshold",
                "*",
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
                "Smaller batches give more catapults, below the critical rate.",
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
                "Smaller batches give more catapults above it, lower errors and better "
                "aligned features.",
                "catapults:small_batches",
                "more_catapults_* lower_error_* higher_alignment_*",
                known=True,
            ),
            Question(
                "They do on digits.",
                "catapults:small_batches_digits",
                "more_catapults_* lower_error_* higher_accuracy_*",
                known=True,
            ),
            Question(
                "The descent lemma says where the loss stops falling: at 2/λ_max.",
                "catapults:lemma",
                "*",
                known=True,
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
                "They help a net that starts at the zero function as one at random.",
                "catapults:control",
                "*",
            ),
            Question(
                "AdaGrad's catapults die out as its critical rate grows.",
                "catapults:adagrad",
                "catapults_of_* equal_peaks_* and_leave_* *critical*",
                known=True,
            ),
            Question(
                "Under bounded cycles AdaGrad has a last catapult, and the bound on "
                "the critical rate foretells it.",
                "catapults:fading",
                "catapults_of_* none_in_the_last_half_* *_meets_the_peak_* "
                "critical_rate_*",
                known=True,
            ),
            Question(
                "Its catapults are strong early and gone late, and its sums of squares "
                "grow as √t.",
                "catapults:fading",
                "spikes_shrink_* what_noise_adds_*",
                known=True,
            ),
            Question(
                "They are where a net is too small to fit its data.",
                "catapults:fading_small",
                "*",
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
        "Andreyev and Beneventano 2024",
        "*Edge of Stochastic Stability: Revisiting the Edge of Stability for SGD*, "
        "arXiv 2412.20553",
        (
            Question(
                "On minibatches the curvature that a step meets in its own batch "
                "settles at 2/lr; in the metric P for RMSprop.",
                "catapults:batch_edge",
                "*_batch_at_threshold",
            ),
            Question(
                "The sharpness of the whole loss stays below it.",
                "catapults:batch_edge",
                "*_whole_below",
                known=True,
            ),
        ),
    ),
    # ---- the intrinsic learning rate
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
                "Its SDE on the sphere has the run's effective lr and loss.",
                "intrinsic_lr:sphere",
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
                "A hundredth of the lr, at the same product, comes to the same loss.",
                "intrinsic_lr:hundredth",
                "*",
                known=True,
            ),
            Question(
                "A small lr alone reaches the same accuracy; a large one first is "
                "sooner at the equilibrium.",
                "intrinsic_lr:early",
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
                "Nets from two starts come to one distribution of functions.",
                "intrinsic_lr:mixing",
                "starts_differ_early_* one_law_at_the_end_*",
                known=True,
            ),
            Question(
                "They do in a time of 1/λ_e.",
                "intrinsic_lr:mixing",
                "*_forgets_* *_halves_in_time_*",
                known=True,
            ),
            Question(
                "Further training changes the net, and not the distribution.",
                "intrinsic_lr:mixing",
                "weights_turn_* functions_move_* law_stays_*",
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
        "Kosson, Messmer, Jaggi 2023",
        "*Rotational Equilibrium: How Weight Decay Balances Learning Across Neural "
        "Networks*, arXiv 2305.17212",
        (
            Question(
                "With weight decay every layer turns by the angle of a closed form.",
                "intrinsic_lr:rotation",
                "*_turns_as_foreseen",
                known=True,
            ),
            Question(
                "Layers turn alike, and not with l2 in Adam's gradient.",
                "intrinsic_lr:rotation",
                "*_layers_turn_alike",
                known=True,
            ),
        ),
    ),
    Source(
        "Wang, Aitchison 2024, of weight decay",
        "*How to set AdamW's weight decay as you scale model and dataset size*, arXiv "
        "2405.13698",
        (
            Question(
                "AdamW's runs are told apart by lr·λ.",
                "intrinsic_lr:rotation",
                "arm_* rescaled_*",
                known=True,
            ),
            Question(
                "The best timescale, in epochs, stays as the data grow, in a net with "
                "norms.",
                "sweep:timescale_normalised",
                "*",
                known=True,
            ),
            Question(
                "There it stays over lr, too.", "sweep:timescale_normalised_lr", "*"
            ),
            Question(
                "It stays as the data grow in a net without.", "sweep:timescale", "*"
            ),
            Question("There it stays over lr, too.", "sweep:timescale_lr", "*"),
        ),
    ),
    # ---- descent
    Source(
        "Li, Wen, Lyu 2025",
        "*Adam Reduces a Unique Form of Sharpness: Theoretical Insights Near the "
        "Minimizer Manifold*, arXiv 2511.02773",
        (
            Question(
                "Under noise on the labels SGD descends tr H along the minima.",
                "descent:label_noise",
                "sgd_*",
                known=True,
            ),
            Question(
                "Adam descends tr Diag(H)^½ there, and raises tr H where they differ.",
                "descent:label_noise",
                "adam_*",
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
    Source(
        "Bottou, Bousquet 2008",
        "*The Tradeoffs of Large Scale Learning*, NIPS 20",
        (
            Question(
                "To an excess loss ε descent needs N log(1/ε) examples, and stochastic "
                "descent 1/ε, whatever N.",
                "descent:full_gradient",
                "one_as_* full_as_* one_whatever_N",
                known=True,
            ),
            Question(
                "At the accuracy that the data allow, single examples are cheaper.",
                "descent:full_gradient",
                "one_is_cheaper_* full_is_cheaper_* no_batch_*",
                known=True,
            ),
        ),
    ),
    Source(
        "Choromanska, Henaff, Mathieu, Ben Arous, LeCun 2015",
        "*The Loss Surfaces of Multilayer Networks*, arXiv 1412.0233",
        (
            Question(
                "Held-out losses of different starts come nearer, and fall, with "
                "width.",
                "descent:starts",
                "test_spread_falls test_mean_falls",
                known=True,
            ),
            Question(
                "Training and held-out loss of the ends part in larger nets.",
                "descent:starts",
                "test_and_training_part",
                known=True,
            ),
            Question(
                "The spread falls faster than the loss, and in wide nets too.",
                "descent:starts",
                "*_still_falls_when_wide *_faster_than_its_mean training_spread_falls",
            ),
        ),
    ),
    Source(
        "Krogh, Hertz 1991",
        "*A Simple Weight Decay Can Improve Generalization*, NIPS 4",
        (
            Question(
                "The best decay of a linear perceptron is the noise of its labels.",
                "descent:perceptron",
                "theory_* a_quarter_* four_times_* none_*",
                known=True,
            ),
            Question(
                "Decay suppresses weights that no example speaks for.",
                "descent:perceptron",
                "without_decay_*",
                known=True,
            ),
            Question(
                "The best decay is better than to stop at the best step.",
                "descent:perceptron",
                "longer_is_worse_* decay_is_better_*",
            ),
            Question(
                "A net with hidden units is better with decay, labels being noisy.",
                "sweep:decay",
                "best_below_*_l2_0",
                known=True,
            ),
            Question(
                "It is where labels are right.",
                "sweep:decay_clean",
                "best_below_*_l2_0",
                known=True,
            ),
        ),
    ),
    Source(
        "Hoffmann et al. 2022",
        "*Training Compute-Optimal Large Language Models*, arXiv 2203.15556, appendix "
        "B",
        (
            Question(
                "A cosine that is longer than the run by more than a quarter ends "
                "higher.",
                "descent:lengths",
                "1.5_is_worse 2_is_worse 5_is_worse",
                known=True,
            ),
            Question(
                "It does at its own best peak, and up to a quarter there is no harm.",
                "descent:lengths",
                "5_is_worse_at_its_own_peak *_does_no_harm",
            ),
            Question(
                "So it is on text, where a short run has only begun.",
                "descent:lengths_text",
                "*_is_worse* *_does_no_harm",
            ),
        ),
    ),
)
