"""Where each reported failure of such systems is held by a test of ours.

The reports come from other projects' users; a row names what went in, and the tests
that say what must come out. A test that is renamed or dropped fails here.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DATA_PATH = "unit/gateway/test_data_path.py"
SWAPPED = "attacks/test_weights_swapped_on_disk.py"

CASES = {
    "request with other key order and white space": {
        DATA_PATH: ["test_request_reaches_the_engine_byte_for_byte"],
        "unit/gateway/test_policy.py": ["test_one_digest_where_nothing_was_altered"],
    },
    "answer in an odd spelling": {
        DATA_PATH: ["test_body_with_odd_spelling_is_passed_byte_for_byte"]
    },
    "gateway that must alter the request": {
        "unit/gateway/test_policy.py": [
            "test_inject",
            "test_both_digests_are_committed",
        ],
    },
    "client that sends a digest of its own": {
        DATA_PATH: ["test_digest_that_a_client_sends_changes_nothing"]
    },
    "compressed answer": {
        DATA_PATH: [
            "test_compressed_answer_is_decoded",
            "test_compressed_stream_is_decoded",
            "test_compressed_bomb_is_refused",
        ],
        "integration/test_proxy_between.py": [
            "test_client_that_takes_gzip",
            "test_proving_client",
        ],
    },
    "engine that says JSON and sends HTML, or nothing": {
        DATA_PATH: [
            "test_html_in_place_of_a_stream",
            "test_nothing_in_place_of_a_stream",
        ],
        "unit/gateway/test_dialects.py": ["test_body_of_another_kind_is_malformed"],
    },
    "[DONE] after an abort, or with one choice of two": {
        "attacks/test_done_after_abort.py": [
            "test_done_after",
            "test_one_of_two_choices_aborted",
            "test_one_of_two_choices_never_came",
        ]
    },
    "end without [DONE], and end within an event": {
        DATA_PATH: [
            "test_terminator_missing",
            "test_stream_that_ends_early_is_truncated",
        ],
        "attacks/test_stream_cut.py": ["test_an_early_end", "test_before_the_comment"],
    },
    "client that leaves after two chunks, and one that leaves after all": {
        DATA_PATH: [
            "test_client_that_leaves_in_a_stream",
            "test_client_that_leaves_after_the_terminal_event",
            "test_clients_that_leave_cost_no_connection",
        ],
        "unit/gateway/test_traces.py": [
            "test_client_that_leaves_is_recorded_as_without_traces",
        ],
        "unit/gateway/test_logs.py": ["test_client_that_left"],
    },
    "stock clients and the token in a stream": {
        "integration/test_openai_sdk.py": [],
        "integration/test_sdks_prove.py": [],
        "integration/test_sdks_stock.py": ["test_the_default_delivery_breaks_nothing"],
        "sdks/test_openai.py": [],
        "sdks/test_langchain.py": ["test_the_default_delivery_breaks_nothing"],
        "sdks/test_litellm.py": ["test_the_default_delivery_breaks_nothing"],
    },
    "snapshot of links into blobs": {
        SWAPPED: [
            "test_snapshot_equals_a_plain_copy",
            "test_blob_overwritten_under_its_name",
            "test_link_out_of_snapshot_and_blobs",
            "test_links_in_a_circle",
        ]
    },
    "extra, missing and ignored files, empty folder, other place": {
        "unit/gateway/test_model_directory.py": [
            "test_extra_file_is_refused",
            "test_missing_file_is_refused",
        ],
        "unit/attest/test_hashing.py": [
            "test_download_metadata_is_set_apart",
            "test_everything_else_is_listed",
            "test_empty_directory",
            "test_only_ignored_files",
            "test_where_the_directory_lies_has_no_effect",
        ],
    },
    "weights that change after the start": {
        "attacks/test_weights_changed_after_start.py": [],
        "attacks/test_weights_reloaded.py": ["test_reload_is_checked_and_shows"],
        "attacks/test_admin_routes_by_path_tricks.py": [
            "test_denied_by_name",
            "test_tricks_never_reach_the_engine",
        ],
    },
    "long hashing": {
        "unit/gateway/test_model_directory.py": [
            "test_honest_directory_with_progress",
            "test_files_that_the_kernel_knows_are_not_read",
        ],
        "unit/gateway/test_watch.py": [
            "test_touched_file_is_read_again_and_is_still_good"
        ],
        "unit/gateway/test_startup.py": [
            "test_restart_with_unchanged_files_reads_none_and_says_so",
            "test_restart_after_the_allowed_age_reads_anew",
            "test_file_that_was_touched_is_read_again",
        ],
        "unit/gateway/test_health.py": [],
    },
    "replicas, restart and rotation": {
        "unit/gateway/test_rotation.py": [
            "test_answers_are_proven_across_a_rotation",
            "test_retained_keys_are_those_before_it_and_outlive_a_restart",
        ],
        "unit/gateway/tlog/test_replicas.py": [
            "test_log_never_shrinks_for_who_asks_replicas_in_turn"
        ],
        "integration/test_workers.py": ["test_four_workers_two_replicas_one_restart"],
        "unit/attest/signers/test_file_signer.py": [
            "test_a_missing_key_is_never_made_up"
        ],
    },
    "key that is compromised from a time on": {
        "unit/attest/test_recall.py": [
            "test_revoked_before_signing_is_false",
            "test_manifest_revoked_after_signing_is_proven_and_noted",
            "test_key_revoked_after_witnesses_saw_the_token",
        ]
    },
    "token that vouches for itself": {
        "attacks/test_token_from_another_key.py": [
            "test_a_key_that_certified_itself",
            "test_hs256_with_the_public_key_as_secret",
            "test_no_signature_at_all",
            "test_the_true_key_in_the_header",
        ]
    },
    "token that is too large for a header": {
        DATA_PATH: ["test_token_too_long_for_a_header_is_fetched_by_id"]
    },
    "older and newer verifiers": {
        "unit/attest/test_verify.py": ["test_unknown_claims_are_told_and_mean_nothing"],
        "compat/test_released_bundles.py": [],
    },
    "slow clients": {"attacks/test_slow_clients.py": []},
    # The back doors of vLLM that were shown to work, each an attack.
    "package with a logits processor": {
        "attacks/test_logits_processor_package.py": [],
        "unit/gateway/test_serving.py": ["test_logits_processor_package_is_refused"],
    },
    "model.py where SageMaker looks": {"attacks/test_sagemaker_model_script.py": []},
    "development mode and runtime adapters": {
        "attacks/test_engine_in_development_mode.py": [],
        "attacks/test_weights_reloaded.py": ["test_reload_is_checked_and_shows"],
    },
    "load format registered again": {
        "attacks/test_load_format_registered_again.py": [],
        "attacks/test_weights_loaded_past_the_plugin.py": [
            "test_engine_does_not_come_up"
        ],
    },
    "sockets in a shared folder": {
        "integration/test_engine.py": ["test_two_boots"],
        "unit/gateway/engine/test_engine_managed.py": ["test_open_run_folder"],
    },
    "inherited environment": {"attacks/test_inherited_environment.py": []},
    # What is made to fail while a gateway serves.
    "engine killed in a stream": {
        "integration/test_gateway.py": [
            "test_engine_killed_in_a_stream_is_told_and_then_another_boot"
        ],
    },
    "full disk, database gone": {
        "integration/test_faults.py": [
            "test_full_disk",
            "test_database_server_that_is_killed_in_a_stream",
            "test_database_that_is_dropped",
        ],
    },
    "killed at any moment": {
        "attacks/test_gateway_killed.py": [
            "test_gateway_killed_at_any_moment",
            "test_database_server_killed_at_any_moment",
        ],
    },
}


@pytest.mark.parametrize("case", CASES)
def test_reported_case_is_held_by_its_tests(case):
    for name, wanted in CASES[case].items():
        tree = ast.parse((TESTS / name).read_bytes())
        found = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
        }
        assert found, name
        assert set(wanted) <= found, (name, set(wanted) - found)
