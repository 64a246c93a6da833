from attest.training.trace.lexical import Lexical

TEXTS = ["how do i bake bread?", "how do i weld iron?", "the king of beasts"]


def best(query, **options):
    scores = Lexical(TEXTS, **options).scores(query)
    return scores.index(max(scores))


def test_the_same_text_is_most_alike():
    scores = Lexical(TEXTS).scores(TEXTS[1])
    assert max(scores) == scores[1]
    assert abs(scores[1] - 1) < 1e-9


def test_rare_words_outweigh_common_ones():
    assert best("how do i find the king?") == 2


def test_case_counts_only_when_asked():
    assert best("WELD IRON") == 1
    assert max(Lexical(TEXTS, fold=False).scores("WELD IRON")) == 0.0


def test_nothing_in_common_is_zero():
    assert Lexical(TEXTS).scores("zzz") == [0.0, 0.0, 0.0]
    assert Lexical([]).scores("a") == []
