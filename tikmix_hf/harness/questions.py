"""CheckedTask: lm-eval's requests for a task's questions, built once, from rows that are checked.

In: one of lm-eval's tasks. Out: the same requests that lm-eval builds, kept for the next time the
task is asked, and without a bar of their own. What lm-eval passes over in silence is an error here:
a right answer that is not among the choices (it scores 0), an empty field (it asks "None").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jinja2
import jinja2.meta
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

FEWSHOT_SEED = 1234
"""lm-eval's own, so that the solved examples are those of its command line."""
# What templates and process_docs raise of rows that do not fit them.
_MISFITS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, SyntaxError, TypeError),
    *(ValueError, jinja2.TemplateError),
)


class CheckedTask(ConfigurableTask):
    """A task of lm-eval's that can be asked again and again."""

    _limits: tuple[int | None, ...] = ()  # of the requests that are there

    def build_all_requests(self, *, limit: int | None = None, **_settings: Any) -> None:
        """Builds the requests of the first `limit` questions, with no answer yet.

        Raises:
            ValueError: a row does not fit the task; says which and why.
        """
        if self._limits != (limit,):
            self.set_fewshot_seed(seed=FEWSHOT_SEED)
            self._instances = [
                request
                for number, doc in self.doc_iterator(limit=limit)
                for request in self._requests(number, doc)
            ]
            self._limits = (limit,)
        for request in self._instances or ():
            request.resps, request.filtered_resps = [], {}

    def build_qa_turn(self, *, c: Any = None, a: Any = None, **turn: Any) -> Any:
        """Of a solved example, whose answer must be one of its choices.

        Raises:
            ValueError: it is none.
        """
        if c and a is not None and not isinstance(a, str) and not _are_choices(a, c):
            raise ValueError(f"the right answer {a!r} of a solved example is not {_among(c)}")
        return super().build_qa_turn(c=c, a=a, **turn)

    def _requests(self, number: int, doc: dict[str, Any]) -> list[Instance]:
        """One question's, as `ConfigurableTask.build_all_requests` makes them."""
        try:
            _check(self, doc)
            context = self.fewshot_context(
                doc, num_fewshot=self.config.num_fewshot or 0, gen_prefix=self.doc_to_prefix(doc)
            )
            made = self.construct_requests(
                doc=doc,
                ctx=context,
                metadata=(self.config["task"], number, self.config.repeats),
                apply_chat_template=False,
                chat_template=None,
            )
        except _MISFITS as err:
            split = self.config.test_split or self.config.validation_split
            raise ValueError(f"question {number + 1} of its {split}: {_reason(err)}") from err
        return made if isinstance(made, list) else [made]


@contextmanager
def rows_named(task: str, files: Mapping[str, str]) -> Iterator[None]:
    """Inside, what rows are unfit for becomes a ValueError that names the task and its files."""
    try:
        yield
    except _MISFITS as err:
        where = ", ".join(text.partition(",")[0] for text in files.values()) or "from the Hub"
        raise ValueError(
            f"the rows of {task} ({where}) do not fit it: {_reason(err)}. Mend or remove the row; "
            "fields must be named and filled as the benchmark's are on the Hub."
        ) from err


def _reason(err: BaseException) -> str:
    """What a person reads; a KeyError says no more than the key."""
    text = str(err).rstrip(".")
    return text if type(err) is ValueError else f"{type(err).__name__}: {text}"


def _check(task: CheckedTask, doc: Mapping[str, Any]) -> None:
    """Refuses a question that lm-eval would score as wrong whatever the model says (ValueError)."""
    for field in _fields(task):
        if field in doc and doc[field] is None:
            raise ValueError(f"its field {field!r} is empty")
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = task.doc_to_choice(doc)
        if not choices or not all(isinstance(choice, str) for choice in choices):
            raise ValueError(f"its choices must be texts; got {choices!r}")
        if not _are_choices(target, choices):
            raise ValueError(f"its right answer {target!r} is not {_among(choices)}")
    elif task.multiple_target and not (isinstance(target, list) and target):
        raise ValueError(f"its right answers must be a list with at least one; got {target!r}")


def _are_choices(right: Any, choices: Sequence[str]) -> bool:
    """Whether a right answer, or each of several, is a choice or a choice's number."""
    several = right if isinstance(right, list) else [right]
    return bool(several) and all(
        0 <= one < len(choices) if isinstance(one, int) else one in choices for one in several
    )


def _among(choices: Sequence[str]) -> str:
    return f"among its {len(choices)} choices, which lm-eval numbers from 0"


def _fields(task: CheckedTask) -> set[str]:
    """Fields of a row that the prompt, the choices and the right answer are made of."""
    config, found = task.config, set()
    for template in (config.doc_to_text, config.doc_to_target, config.doc_to_choice):
        if isinstance(template, str):
            is_field = template in task.features
            tree = jinja2.Environment().parse(template)
            found |= {template} if is_field else jinja2.meta.find_undeclared_variables(tree)
    return found
