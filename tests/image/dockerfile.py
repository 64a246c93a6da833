"""Reading our Dockerfile, and doing its steps in a folder: no engine, no root."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Step:
    name: str
    text: str

    def words(self):
        """The arguments of an exec-form step; ValueError for the shell form."""
        return json.loads(self.text)


@dataclass
class Stage:
    name: str
    base: str
    steps: list[Step] = field(default_factory=list)

    def last(self, name):
        return [step for step in self.steps if step.name == name][-1].text


def read_dockerfile(path):
    """The global ARGs and the stages, by name."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    arguments, stages, stage = {}, {}, None
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stage = stages[alias] = Stage(alias, base.strip("${}"))
        elif stage is not None and name:
            stage.steps.append(Step(name, rest))
        elif name:
            key, _, value = rest.partition("=")
            arguments[key] = value
    return arguments, stages


class Replay:
    """The file system of an image as a folder; absolute paths are moved below it."""

    def __init__(self, root, context, python):
        self.root, self.context, self.python = root, context, python
        self.folder = Path("/")
        self.environment = {}

    def inside(self, path):
        return self.root / Path("/", self.folder, path).relative_to("/")

    def run(self, stage):
        for step in stage.steps:
            getattr(self, f"do_{step.name.lower()}", lambda _: None)(step)

    def do_workdir(self, step):
        self.folder = Path(step.text)
        self.inside(".").mkdir(parents=True, exist_ok=True)

    def do_env(self, step):
        self.environment |= dict(part.split("=", 1) for part in step.text.split())

    def do_copy(self, step):
        if step.text.startswith("--from="):
            return  # one folder stands for all stages
        *sources, target = step.text.split()
        for source in sources:
            origin, folder = self.context / source, self.inside(target)
            if origin.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(origin, folder, ignore=ignore, dirs_exist_ok=True)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, folder)

    def do_run(self, step):
        program, *words = step.words()
        assert program == "python"
        moved = [re.sub(r"(^|=)/(opt|wheels)", rf"\1{self.root}/\2", w) for w in words]
        done = subprocess.run(
            [self.python, *moved],
            cwd=self.inside("."),
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
