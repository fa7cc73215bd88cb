"""Settings of all tests, and which of them wait for `.ci/slow`."""

import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each worker has a core: threads of small solves would wait for each other
# tests compile more than they run; and LLVM cannot select instructions of some tiny programs ("SUBV_BROADCAST_LOAD") for AVX-512
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_cpu_max_isa=AVX2")

import jax
import pytest

collect_ignore = ["parallel_checks.py", "device_checks.py"]  # run in processes of their own

jax.config.update("jax_enable_x64", True)
# compiled once for all workers, and for the next run
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

# More than half of the time of all tests; of each kind at least one other is run always.
SLOW = {
    "test_what_happens_next_to_nodes_is_seen",
    "test_snippets_of_optional_packages[arviz_base]",
    "test_series_are_kept_on_request",
    "test_a_run_from_its_file_to_a_state",
    "test_a_lost_sign_is_told",
    "test_stored_layers_are_sampled_as_the_thermal_state[exchange]",
    "test_stored_layers_are_sampled_as_the_thermal_state[frustrated]",
    "test_stored_layers_are_sampled_as_the_thermal_state[learned ising]",
    "test_stored_layers_are_sampled_as_the_thermal_state[learned exchange]",
    "test_stored_neural_states_have_amplitudes_and_samples[ising]",
    "test_sampled_rings_agree_with_matrices[pair product]",
    "test_sampled_rings_agree_with_matrices[heisenberg]",
    "test_a_closed_pipe_gives_no_traceback",
    "test_target_error_is_reached",
    "test_amplitudes_and_derivatives[product of sums]",
    "test_log_derivatives_match_automatic_differentiation[0.3-0]",
    "test_tables_give_the_ratios_of_full_evaluation_along_a_walk[0]",
    "test_programs_do_not_grow_with_the_number_of_classes",
    "test_nodes_are_never_visited_and_nothing_is_infinite",
    "test_pair_products_follow_a_frustrated_magnet[graph in a field]",
    "test_the_snippet_of_the_readme",
    "test_observables_of_a_user[deterministic-ising]",
    "test_observables_of_a_user[deterministic-exchange]",
    "test_couplings_carry_over_to_a_larger_magnet",
    "test_random_vectors_train_as_matrices_do[Heisenberg]",
    "test_known_ground_states[triangular]",
    "test_known_ground_states[kagome]",
    "test_deviations_are_as_large_as_errors_say[ising]",
    "test_deviations_are_as_large_as_errors_say[ising in a field]",
    "test_every_observable_agrees_with_diagonalisation[frustrated ladder]",
    "test_longitudinal_field",
    "test_a_stopped_run_ends_with_the_same_arrays[enumerated]",
    "test_every_observable_agrees_with_diagonalisation[bonds of both signs]",
    "test_every_observable_agrees_with_diagonalisation[easy axis, ferromagnetic]",
    "test_every_observable_agrees_with_diagonalisation[Heisenberg, ferromagnetic, in a field]",
    "test_every_observable_agrees_with_diagonalisation[random bonds and fields]",
    "test_every_observable_agrees_with_diagonalisation[frustrated triangles, easy axis]",
    "test_amplitudes_and_derivatives[sum of a product]",
    "test_log_derivatives_match_automatic_differentiation[0.3-2]",
    "test_pairings_of_opposite_signs_do_not_cancel_at_the_start",
    "test_notebook_runs[first_thermal_curve]",
    "test_enumerated_evolution_follows_the_exact_curve[random graph in fields]",
    "test_kernel_forgets_its_start[gibbs]",
    "test_frustrated_magnets_mix[h1-2.0]",
    "test_samples_follow_the_enumerated_weights[ferromagnetic bonds are mixed, too]",
    "test_samples_follow_the_enumerated_weights[pair in a field]",
    "test_caches_are_made_anew_and_all_ratios_come_at_once_where_a_trial_state_asks",
    "test_a_start_that_is_not_the_thermal_state_is_not_trusted[False]",
    "test_amplitudes_and_derivatives[sum]",
    "test_every_observable_agrees_with_diagonalisation[easy plane, open]",
    "test_every_observable_agrees_with_diagonalisation[frustrated ring]",
    "test_amplitudes_and_derivatives[product]",
    "test_open_graph_without_symmetry",
    "test_two_ranks_give_what_one_gives[cholesky]",
    "test_two_ranks_give_what_one_gives[cg]",
    "test_kernel_gives_what_log_derivatives_give[2-False]",
    "test_kernel_gives_what_log_derivatives_give[0-True]",
    "test_parameters_without_effect_stay_where_they_are[cg]",
    "test_histogram_of_walkers_is_the_enumerated_distribution[tfim-False-2.0]",
    "test_histogram_of_walkers_is_the_enumerated_distribution[xxz-False-2.0]",
    "test_histogram_of_walkers_is_the_enumerated_distribution[xxz-True-2.0]",
    "test_local_ratios_give_the_local_energy[heisenberg-False]",
    "test_controls_have_mean_zero_and_explain_most_of_the_energy[tfim]",
    "test_controls_have_mean_zero_and_explain_most_of_the_energy[heisenberg]",
    "test_estimates_scatter_as_their_errors_say",
    "test_log_derivatives_match_automatic_differentiation[0.0-0]",
    "test_log_derivatives_match_automatic_differentiation[0.0-2]",
    "test_frustrated_magnets_mix[h0-5.0]",
    "test_labels_are_the_connected_components[False]",
    "test_what_was_not_seen_is_not_excluded",
    "test_pulls_over_seeds_without_field",
    "test_sampled_pairs_agree_within_their_errors",
    "test_sampled_pair_products_agree_within_their_errors",
    "test_pair_products_follow_a_frustrated_magnet[frustrated ring]",
    "test_derivatives_and_ratios[several]",
    "test_derivatives_and_ratios[tied]",
    "test_amplitude_is_the_sum_of_determinants[several]",
    "test_updates_drift_little_until_they_are_made_anew[None]",
    "test_pairings_of_defects_follow_better_than_a_network",
    "test_few_walkers_are_owned_up_to",
    "test_a_resumed_run_goes_on_bit_for_bit",
    "test_enumerated_evolution_follows_the_exact_curve[ring]",
    "test_enumerated_evolution_follows_the_exact_curve[xxz in a field]",
    "test_numbers_do_not_depend_on_the_number_of_devices",
    "test_alarms_of_the_compiler_are_kept_out_of_sight",
    "test_killed_processes_leave_files_that_can_be_resumed",
    "test_a_rank_that_fails_or_dies_ends_all_and_the_file_is_kept[raise NumericsError('one chain is lost')]",
    "test_a_rank_that_fails_or_dies_ends_all_and_the_file_is_kept[raise ZeroDivisionError]",
    "test_doctor_on_two_ranks",
    "test_sampled_derivatives_agree_with_exact_ones[turned from the isotropic point]",
    "test_sampled_derivatives_agree_with_exact_ones[worldlines]",
    "test_sampled_derivatives_in_groups_of_bonds",
    "test_a_page_does_what_it_says[fits]",
    "test_scans_are_merged_value_by_value",
    "test_temperatures_are_added_in_place[scan]",
    "test_sampled_magnetisation_curves[xxz]",
    "test_sampled_magnetisation_curves[tfim]",
    "test_notebook_runs[couplings_from_curves]",
    "test_notebook_runs[few_layers]",
    "test_notebook_runs[heisenberg_magnets]",
    "test_notebook_runs[learning_the_thermal_state]",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.name in SLOW:
            item.add_marker(pytest.mark.slow)
