"""The benchmark of new items asks fairly: nothing of the target is left, and a stand-in is not the target itself."""

from pathlib import Path

import numpy as np
from new_items import as_new, measure, questions

from service.release.opening import open_release


def test_what_is_read_as_new_has_nothing_of_its_own_left(demo_release: Path) -> None:
    release = open_release(demo_release)
    asked = questions((demo_release / "current").resolve(), release, 30)
    assert len(asked) == 30
    assert all(target not in history for _, history, target in asked)
    assert release.new_items is not None
    reader = release.new_items.reading.reader
    for _, _, target in asked[:5]:
        read = as_new(reader, release, target)
        changed = reader.item_vectors.copy()
        changed[target] += 1.0
        again = as_new(type(reader)(**{**vars(reader), "item_vectors": changed}), release, target)
        for name in ("no identity", "its stand-in's"):
            np.testing.assert_array_equal(read[name], again[name])
        assert not np.allclose(read["its own identity"], again["its own identity"])
    places = measure(release, asked)
    assert {len(found) for found in places.values()} == {30}
    assert (places["its own identity"] >= 0).all()
