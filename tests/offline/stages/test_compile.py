"""The exported graphs say what the model and `isrf.method.interest` say, alone and in batches; exports repeat byte by
byte.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from isrf.contract.manifest import INTEREST_GRAPH_FILE
from isrf.method.interest import InterestTables, pad_histories, read_history, unit_rows
from isrf.method.trie import build_trie
from isrf.nn.search import BEAM_INPUTS, QUERY_INPUTS, ConstrainedSearch, SearchTensors
from isrf.runtime.onnx_session import graph_of, graph_signature, open_bundle_session
from offline.stages.export_onnx import stage as compile_stage
from offline.stages.train import stage as train
from offline.stages.train.build import load_model
from tests.isrf.nn.toy import make_model, make_request, open_nodes_of, random_ids, search_inputs
from tests.offline.stages.train_inputs import LEVELS, NUM_ITEMS, context, small_config, write_inputs


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def open_graph(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """Both stages' outputs on random inputs."""
    folder = tmp_path_factory.mktemp("compiled")
    inputs = write_inputs(folder)
    trained = context(folder, inputs, "train", small_config())
    train.run(trained)
    inputs["train"] = trained.out
    ctx = context(folder, inputs, "compile", small_config())
    compile_stage.run(ctx)
    return ctx.out, inputs


def test_the_stage_writes_graphs_and_tables_with_the_stated_names(compiled: tuple[Path, dict[str, Path]]) -> None:
    out, inputs = compiled
    session = open_graph(out / "recommender.onnx")
    assert tuple(value.name for value in session.get_inputs()) == (*QUERY_INPUTS, *BEAM_INPUTS)
    assert tuple(value.name for value in session.get_outputs()) == SearchTensors._fields
    shapes = {value.name: tuple(value.shape) for value in session.get_inputs()}
    assert shapes["history"] == shapes["history_mask"] == ("B", "S")
    assert shapes["open_nodes"] == ("B", "M")
    assert shapes["item_inputs"] == ("N", 16)
    assert shapes["trie_code"] == shapes["trie_leaf_start"] == ("M",)
    outputs = {value.name: tuple(value.shape) for value in session.get_outputs()}
    assert outputs["beam_items"] == outputs["beam_log_probs"] == ("B", 6)
    assert outputs["query"] == ("B", 16)
    model = load_model(inputs)
    for name, table in (("item_inputs", model.item_inputs()), ("item_vectors", model.item_vectors())):
        stored = np.load(out / f"{name}.npy")
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, table.numpy())


def test_two_exports_are_equal_byte_for_byte(compiled: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    out, inputs = compiled
    again = context(tmp_path, inputs, "compile", small_config())
    compile_stage.run(again)
    names = sorted(path.name for path in out.iterdir())
    tables = ["code_vectors", "item_inputs", "item_vectors", "node_vectors", "text_adapter"]
    assert names == sorted([*(f"{name}.npy" for name in tables), "lightgcn.onnx", "recommender.onnx"])
    for name in names:
        assert (again.out / name).read_bytes() == (out / name).read_bytes()


def test_the_unrolled_steps_share_their_weights(compiled: tuple[Path, dict[str, Path]]) -> None:
    out, _ = compiled
    graph = onnx.load(out / "recommender.onnx").graph
    shapes = [tuple(tensor.dims) for tensor in graph.initializer]
    # One decoder layer: its feed-forward matrix stands once beside the two of the encoder, not once per level.
    assert LEVELS > 1
    assert shapes.count((16, 24)) + shapes.count((24, 16)) == 2 * 3


def run_both(
    session: Any, search: ConstrainedSearch, arrays: dict[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], SearchTensors]:
    # A trie of two levels has no beam that the decoder may leave out: its graph has no use for the leaves' ends.
    feeds = {value.name: arrays[value.name] for value in session.get_inputs()}
    theirs = dict(zip(SearchTensors._fields, session.run(None, feeds), strict=True))
    with torch.no_grad():
        ours = search(*(torch.from_numpy(arrays[name]) for name in search.input_names))
    return theirs, SearchTensors(*ours)


def test_the_graph_answers_as_the_torch_model_does_on_200_histories(
    compiled: tuple[Path, dict[str, Path]],
) -> None:
    """Items and order equal; batches of every size and history width, masks from nothing to everything."""
    out, inputs = compiled
    model = load_model(inputs)
    session = open_graph(out / "recommender.onnx")
    search = ConstrainedSearch(model, num_beams=6)
    semantic_ids = np.load(inputs["semantic-ids"] / "semantic_ids.npy")
    trie = build_trie(semantic_ids, model.spec.codebook_size)
    rng = np.random.default_rng(0)
    done = 0
    for batch in (1, 1, 2, 7, 13, 64, 112):
        histories = [rng.integers(0, NUM_ITEMS, rng.integers(1, 6)).tolist() for _ in range(batch)]
        history, mask = pad_histories(histories, int(rng.integers(1, 6)))
        allowed = rng.random((batch, NUM_ITEMS)) < rng.choice([0.0, 0.05, 0.5, 1.0], (batch, 1))
        arrays: dict[str, NDArray[Any]] = {
            "history": history,
            "history_mask": mask,
            "explicit": unit_rows(rng.normal(size=(batch, 6)).astype(np.float32)),
            "group": unit_rows(rng.normal(size=(batch, 6)).astype(np.float32)),
            "task": rng.integers(0, 2, batch),
            "open_nodes": open_nodes_of(trie, allowed),
            "item_inputs": np.load(out / "item_inputs.npy"),
            "node_vectors": np.load(out / "node_vectors.npy"),
            **trie._asdict(),
        }
        theirs, ours = run_both(session, search, arrays)
        for name, value in ours._asdict().items():
            if value.dtype == torch.int64:
                np.testing.assert_array_equal(theirs[name], value.numpy(), err_msg=name)
            else:
                np.testing.assert_allclose(theirs[name], value.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
        for row in range(min(batch, 5)):  # alone, as in company
            alone = {
                name: value[row : row + 1]
                if name in ("history", "history_mask", "explicit", "group", "task", "open_nodes")
                else value
                for name, value in arrays.items()
            }
            for name, value in zip(SearchTensors._fields, session.run(None, alone), strict=True):  # to the last bit
                np.testing.assert_array_equal(value[0], theirs[name][row], err_msg=name)
        done += batch
    assert done == 200


@pytest.mark.parametrize(
    ("levels", "codes", "num_items", "num_beams"),
    [(1, 9, 7, 4), (2, 3, 8, 20), (4, 2, 16, 5), (5, 4, 50, 60)],
)
def test_every_shape_of_trie_exports(tmp_path: Path, levels: int, codes: int, num_items: int, num_beams: int) -> None:
    """One level, more beams than items or codes, a full trie, a deep one."""
    semantic_ids = random_ids(num_items, levels, codes)
    model = make_model(semantic_ids, codes, history_length=1)
    search = ConstrainedSearch(model, num_beams=num_beams)
    compile_stage.export_search(search, build_trie(semantic_ids, codes), tmp_path / "g.onnx")
    session = open_graph(tmp_path / "g.onnx")
    inputs = search_inputs(search, semantic_ids, **make_request(model, 3, length=1))
    arrays = {name: value.numpy() for name, value in zip(search.input_names, inputs, strict=True)}
    theirs, ours = run_both(session, search, arrays)
    np.testing.assert_array_equal(theirs["beam_items"], ours.beam_items.numpy())


def test_equal_scores_have_one_order_in_both(tmp_path: Path) -> None:
    semantic_ids = random_ids(27, 3, 3)  # a full trie, so that every item's score is the same
    model = make_model(semantic_ids, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    search = ConstrainedSearch(model, num_beams=7)
    compile_stage.export_search(search, build_trie(semantic_ids, 3), tmp_path / "g.onnx")
    inputs = search_inputs(search, semantic_ids, **make_request(model, 3))
    arrays = {name: value.numpy() for name, value in zip(search.input_names, inputs, strict=True)}
    theirs, ours = run_both(open_graph(tmp_path / "g.onnx"), search, arrays)
    np.testing.assert_array_equal(theirs["beam_items"], ours.beam_items.numpy())


def test_another_catalogue_needs_no_new_export(tmp_path: Path) -> None:
    """The trie and the item tables are inputs: a graph exported with one catalogue answers for a larger one."""
    few, many = random_ids(20, 3, 5), random_ids(70, 3, 5, seed=1)
    model = make_model(few, 5)
    search = ConstrainedSearch(model, num_beams=9)
    assert (build_trie(few, 5).trie_places[1:] < build_trie(many, 5).trie_places[1:]).all()  # nothing of it is baked in
    compile_stage.export_search(search, build_trie(few, 5), tmp_path / "g.onnx")
    request = {name: value.numpy() for name, value in make_request(model, 2).items()}
    rng = np.random.default_rng(0)
    arrays = {
        **{name: request[name] for name in ("history", "explicit", "group", "task")},
        "history_mask": request["mask"],
        "open_nodes": np.ones((2, len(build_trie(many, 5).trie_code)), dtype=np.bool_),
        "item_inputs": rng.normal(size=(70, 16)).astype(np.float32),
        "node_vectors": rng.normal(size=(len(build_trie(many, 5).trie_code), 17)).astype(np.float32),
        **build_trie(many, 5)._asdict(),
    }
    theirs, ours = run_both(open_graph(tmp_path / "g.onnx"), search, arrays)
    np.testing.assert_array_equal(theirs["beam_items"], ours.beam_items.numpy())
    assert len(set(theirs["beam_items"][0].tolist())) == 9


def test_the_interest_graph_is_read_history(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tables = InterestTables(
        item_text=unit_rows(rng.normal(size=(30, 5)).astype(np.float32)),
        item_layers=rng.normal(size=(30, 4)).astype(np.float32),
        feature_map=rng.normal(size=(5, 5)).astype(np.float32),
        recency=0.7,
        text_share=0.3,
    )
    reader = compile_stage.InterestReader(tables, interest_length=12)
    compile_stage.export_interest(reader, tmp_path / "i.onnx")
    session = open_graph(tmp_path / "i.onnx")
    histories = [rng.integers(0, 30, rng.integers(0, 13)).tolist() for _ in range(50)] + [[]]
    for length in (1, 5, 12):
        history, mask = pad_histories(histories, length)
        read = read_history(tables, history, mask)
        explicit, feature = session.run(["explicit", "feature"], {"history": history, "history_mask": mask})
        np.testing.assert_allclose(explicit, read.explicit, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(feature, read.feature, rtol=1e-5, atol=1e-6)
    assert (explicit[-1] == 0).all()
    assert (feature[-1] == 0).all()


def test_the_service_reads_the_interest_graph_s_tables_where_the_file_lies(tmp_path: Path) -> None:
    """Large tables are views of the file's bytes, and the answers are those of the file, to the last bit."""
    rng, num_items = np.random.default_rng(0), 5_000
    tables = InterestTables(
        item_text=unit_rows(rng.normal(size=(num_items, 64)).astype(np.float32)),
        item_layers=rng.normal(size=(num_items, 64)).astype(np.float32),
        feature_map=rng.normal(size=(64, 64)).astype(np.float32),
        recency=0.7,
        text_share=0.3,
    )
    path = tmp_path / INTEREST_GRAPH_FILE
    compile_stage.export_interest(compile_stage.InterestReader(tables, interest_length=12), path)
    content = np.memmap(path, np.uint8, mode="r")
    session, found = open_bundle_session(path.name, content, graph_signature(path))
    assert found.keys() == {"item_text", "item_layers"}
    assert all(np.shares_memory(table, content) for table in found.values())
    history, mask = pad_histories([rng.integers(0, num_items, rng.integers(0, 13)).tolist() for _ in range(20)], 12)
    inputs = {"history": history, "history_mask": mask}
    whole = open_graph(path).run(["explicit", "feature"], inputs)
    ours = graph_of(session, path.name, found)(inputs)
    for name, expected in zip(("explicit", "feature"), whole, strict=True):
        np.testing.assert_array_equal(ours[name], expected)


def test_the_export_warns_of_nothing_else(tmp_path: Path) -> None:
    """Only the exporter's own deprecation is silenced: a warning about the graph would be an error here."""
    semantic_ids = random_ids(20, 3, 5)
    search = ConstrainedSearch(make_model(semantic_ids, 5), num_beams=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile_stage.export_search(search, build_trie(semantic_ids, 5), tmp_path / "g.onnx")
    onnx.checker.check_model(str(tmp_path / "g.onnx"))
