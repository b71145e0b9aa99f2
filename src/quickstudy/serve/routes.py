"""The calls of the HTTP interface; each is a few lines on the store or the engine."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, File, Form, Path, Query, Response, UploadFile

import quickstudy
from quickstudy.serve import rows, schemas
from quickstudy.serve.adapted import Place
from quickstudy.serve.engine import Engine
from quickstudy.serve.limits import as_stored, checked_name
from quickstudy.serve.refusal import Refusal
from quickstudy.serve.schemas import refusals

TaskId = Annotated[str, Path(description="The id that POST /tasks gave.")]
ExampleId = Annotated[str, Path(description="The id of an example.")]
ClassName = Annotated[str, Path(description="The name of a class; a / in it may stand as it is or as %2F.")]
Label = Annotated[str, Form(description="The class of the images; made if it is new.", examples=["circle"])]
Images = Annotated[list[UploadFile], File(description="PNG, JPEG, GIF, BMP or WEBP, told by their content.")]
Coverage = Annotated[float, Query(gt=0, lt=1, description="How often a set is to hold the true class.")]
FalseAlarms = Annotated[
    float, Query(gt=0, lt=1, description="The fraction of images of known classes that may be called unknown.")
]


def routes(engine: Engine, learner: str) -> APIRouter:
    """All calls but the page and the docs.

    Args:
        engine: with its store and limits.
        learner: its name, for /health.
    """
    kept, limits = engine.store, engine.limits
    most = schemas.Most.model_validate(dataclasses.asdict(limits))
    router = APIRouter(responses=refusals(401, 403, 408, 413, 422, 429, 503, 507))

    @router.get("/health", tags=["server"])
    def health() -> schemas.Health:
        """Whether the server is up and its state is where it was, and its limits; needs no token."""
        kept.require_there()
        return schemas.Health(
            status="ok", version=quickstudy.__version__, learner=learner, tasks=kept.count(), limits=most
        )

    router.add_api_route("/health", health, methods=["HEAD"], include_in_schema=False)

    @router.post("/tasks", status_code=201, tags=["tasks"], responses=refusals(409))
    def create_task(body: schemas.Name) -> schemas.NewTask:
        """Create a task without classes."""
        task = kept.create(checked_name(body.name, "a task", limits))
        return schemas.NewTask(id=task.id, name=task.name, classes=[])

    @router.get("/tasks", tags=["tasks"])
    def list_tasks() -> list[schemas.Task]:
        """All tasks, the oldest first."""
        return [_task(task) for task in kept.tasks()]

    @router.get("/tasks/{task}", tags=["tasks"], responses=refusals(404))
    def get_task(task: TaskId) -> schemas.Task:
        """One task with its classes."""
        return _task(kept.task(task))

    @router.delete("/tasks/{task}", status_code=204, tags=["tasks"], responses=refusals(404))
    def delete_task(task: TaskId) -> None:
        """Delete a task with all its examples."""
        kept.delete(task)
        engine.forget(task)

    @router.post("/tasks/{task}/classes", status_code=201, tags=["classes"], responses=refusals(404, 409))
    def add_class(task: TaskId, body: schemas.Name) -> schemas.Class:
        """Add a class without examples; it answers nothing until it has one."""
        return _class(kept.add_class(task, checked_name(body.name, "a class", limits)))

    @router.patch("/tasks/{task}/classes/{name:path}", tags=["classes"], responses=refusals(404, 409))
    def rename_class(task: TaskId, name: ClassName, body: schemas.Name) -> schemas.Class:
        """Give a class another name; its examples stay."""
        return _class(kept.rename_class(task, as_stored(name), checked_name(body.name, "a class", limits)))

    @router.delete("/tasks/{task}/classes/{name:path}", status_code=204, tags=["classes"], responses=refusals(404))
    def delete_class(task: TaskId, name: ClassName) -> None:
        """Delete a class with its examples."""
        kept.delete_class(task, as_stored(name))

    @router.post("/tasks/{task}/examples", status_code=201, tags=["examples"], responses=refusals(404, 409, 415))
    async def add_examples(task: TaskId, label: Label, files: Images) -> schemas.Added:
        """Add labelled images, all of them or none; once answered they survive a crash."""
        name = checked_name(label, "a class", limits)
        stored = await engine.take_in(await _contents(files, limits.files))
        ids, now = await engine.aside(kept.add_examples, task, name, stored)
        examples = [schemas.Example(id=example, label=name) for example in ids]
        return schemas.Added(examples=examples, classes=[_class(each) for each in now.classes])

    @router.get("/tasks/{task}/examples", tags=["examples"], responses=refusals(404))
    def list_examples(task: TaskId) -> list[schemas.Example]:
        """All examples, the oldest first."""
        return [schemas.Example(id=example, label=label) for example, label in kept.examples(task)]

    @router.get(
        "/tasks/{task}/examples/{example}.png",
        tags=["examples"],
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **refusals(404)},
    )
    def show_example(task: TaskId, example: ExampleId) -> Response:
        """A small copy of the image that was sent."""
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(kept.png(task, example), media_type="image/png", headers=headers)

    @router.delete("/tasks/{task}/examples/{example}", status_code=204, tags=["examples"], responses=refusals(404))
    def delete_example(task: TaskId, example: ExampleId) -> None:
        """Delete one example; its class stays."""
        kept.delete_example(task, example)

    @router.post("/tasks/{task}/classify", tags=["answers"], responses=refusals(404, 409, 415))
    async def classify(
        task: TaskId, files: Images, coverage: Coverage = 0.9, false_alarms: FalseAlarms = 0.05
    ) -> schemas.Predictions:
        """Classify images; needs examples of two classes.

        Where there is too little to calibrate on for the coverage or the false alarms asked for, sets hold every class
        and nothing is called unknown.
        """
        images = await _contents(files, limits.files)
        answers = await engine.classify(task, images, coverage=coverage, false_alarms=false_alarms)
        return schemas.Predictions.model_validate({"predictions": [answer.as_dict() for answer in answers]})

    @router.get("/tasks/{task}/map", tags=["answers"], responses=refusals(404))
    async def show_map(task: TaskId) -> schemas.Map:
        """Where the examples lie in the learner's embedding."""
        support, places, _ = await engine.map(task)
        return schemas.Map(points=_points(support, places))

    @router.post("/tasks/{task}/map", tags=["answers"], responses=refusals(404, 415))
    async def show_map_with_queries(task: TaskId, files: Images) -> schemas.MapWithQueries:
        """The same, with further images in the same plane."""
        support, places, queries = await engine.map(task, await _contents(files, limits.files))
        return schemas.MapWithQueries(
            points=_points(support, places), queries=[schemas.Place(**place) for place in queries]
        )

    @router.get(
        "/tasks/{task}/model",
        tags=["answers"],
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}}, **refusals(404, 409)},
    )
    async def download(task: TaskId) -> Response:
        """The adapted classifier as one file, for `quickstudy predict` and `quickstudy.load_model`."""
        content = await engine.model(task)
        named = (await engine.aside(kept.task, task)).name
        name = re.sub(r"[^A-Za-z0-9]+", "-", named).strip("-")
        headers = {"Content-Disposition": f'attachment; filename="{name or "model"}.safetensors"'}
        return Response(content, media_type="application/octet-stream", headers=headers)

    return router


async def _contents(files: Sequence[UploadFile], most: int) -> list[bytes]:
    if len(files) > most:
        raise Refusal(
            422, f"{len(files)} files were sent; required are at most {most} at a time: send the rest after it"
        )
    return [await file.read() for file in files]


def _class(row: rows.Class) -> schemas.Class:
    return schemas.Class(name=row.name, examples=row.examples)


def _task(row: rows.Task) -> schemas.Task:
    return schemas.Task(id=row.id, name=row.name, created=row.created, classes=[_class(each) for each in row.classes])


def _points(support: rows.Support, places: Sequence[Place]) -> list[schemas.Point]:
    named = zip(support.ids, support.labels, places, strict=True)
    return [schemas.Point(example=example, label=label, **place) for example, label, place in named]
