"""The line of a training's progress."""

from emul.training.loggers import fitting_text


def test_what_matters_least_is_left_out_of_a_narrow_terminal():
    texts = ["loss 0.1234", "score 0.456", "", "lr 1.0e-03", "12 samples/s"]
    assert fitting_text(texts, None) == "loss 0.1234  score 0.456  lr 1.0e-03  12 samples/s"
    assert fitting_text(texts, 36) == "loss 0.1234  score 0.456  lr 1.0e-03"
    assert fitting_text(texts, 24) == "loss 0.1234  score 0.456"
    assert fitting_text(texts, 3) == "loss 0.1234"
