"""A tool server that serves every server scenario of `@modelcontextprotocol/conformance`, in both eras.

    python tests/servers/conforming.py --port 3001
    python tests/servers/conforming.py --port 0 --port-file FILE

Streamable HTTP at /mcp on 127.0.0.1. The scenarios say what each tool, resource and prompt answers; what
is here follows the everything-server among the examples of the Python MCP SDK (MIT licence).
"""

# ruff: noqa: N803, N815, PT028 - names are the scenarios' own, and these `test_` are no tests
from __future__ import annotations

import argparse
import asyncio
import base64
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import uvicorn
from mcp import types
from mcp.server import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer, RequestStateSecurity
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, Field

PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
WAV: Final = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
STEP_SECONDS, AWAY_SECONDS, RETRY_MILLISECONDS = 0.05, 0.2, 100
IMAGE: Final = types.ImageContent(type="image", data=PNG, mime_type="image/png")


class Events(EventStore):
    """Every event of every stream, so that a client may take up a stream where it left it."""

    def __init__(self) -> None:
        self._events: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id) if last_event_id.isdecimal() else 0
        if not 0 < last <= len(self._events):
            return None
        stream = self._events[last - 1][0]
        for number, (owner, message) in enumerate(self._events[last:], last + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


mcp = MCPServer(
    name="conforming",
    version="1",
    request_state_security=RequestStateSecurity(keys=[b"a fixed key, for nothing but these tests"]),
)


def text(value: str) -> types.TextContent:
    return types.TextContent(type="text", text=value)


def resource(uri: str, value: str, kind: str = "text/plain") -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource", resource=types.TextResourceContents(uri=uri, mime_type=kind, text=value)
    )


# -- tools that answer by themselves ---------------------------------------------------------------


def tool(run: Callable[..., Any], name: str = "") -> Callable[..., Any]:
    """Serve a tool. The suite wants every tool and every prompt to have a description."""
    mcp.add_tool(run, name=name or run.__name__, description=name or run.__name__)
    return run


def prompt(run: Callable[..., Any]) -> Callable[..., Any]:
    mcp.add_prompt(Prompt.from_function(run, description=run.__name__))
    return run


def always(*content: types.ContentBlock) -> Callable[[], types.CallToolResult]:
    def run() -> types.CallToolResult:
        return types.CallToolResult(content=[*content])

    return run


STRING: Final = {"type": "string"}
MIXED: Final = resource("test://mixed-content-resource", '{"test": "data"}', "application/json")
tool(always(text("This is a simple text response for testing.")), "test_simple_text")
tool(always(IMAGE), "test_image_content")
tool(always(types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")), "test_audio_content")
tool(always(resource("test://embedded-resource", "An embedded resource.")), "test_embedded_resource")
tool(always(text("Multiple content types test:"), IMAGE, MIXED), "test_multiple_content_types")
tool(always(text("any")), "json_schema_2020_12_tool")


@tool
def test_error_handling() -> str:
    raise RuntimeError("This tool intentionally returns an error for testing")


@tool
def test_x_mcp_header(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "<none>",
) -> str:
    return f"region={region}"


# The SDK makes schemas of signatures only, and none gives all of these keywords.
mcp._tool_manager._tools["json_schema_2020_12_tool"].parameters = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": STRING}}},
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {**STRING, "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


# -- tools that say something meanwhile --------------------------------------------------------------


@tool
async def test_tool_with_logging(ctx: Context) -> str:
    for step in ("started", "processing data", "completed"):
        await ctx.info(f"Tool execution {step}")
        await asyncio.sleep(STEP_SECONDS)
    return "Tool with logging executed successfully"


@tool
async def test_tool_with_progress(ctx: Context) -> str:
    for step in (0, 50, 100):
        await ctx.report_progress(progress=step, total=100, message=f"Completed step {step} of 100")
        await asyncio.sleep(STEP_SECONDS)
    return str((ctx.request_context.meta or {}).get("progress_token", 0))


@tool
async def test_reconnection(ctx: Context) -> str:
    await ctx.info("Before disconnect")
    await ctx.close_sse_stream()
    await asyncio.sleep(AWAY_SECONDS)  # time for the client to come back
    await ctx.info("After reconnect")
    return "Reconnection test completed"


def dynamic() -> str:
    return "dynamic"


tool(dynamic, "test_dynamic_tool")  # there at first, so that it can be pinned


@tool
async def test_trigger_tool_change(ctx: Context) -> str:
    if "test_dynamic_tool" in {each.name for each in await mcp.list_tools()}:
        mcp.remove_tool("test_dynamic_tool")
    else:
        tool(dynamic, "test_dynamic_tool")
    await ctx.notify_tools_changed()
    return "tool list changed"


@tool
async def test_trigger_prompt_change(ctx: Context) -> str:
    prompt(test_trigger_prompt_change)
    mcp.remove_prompt("test_trigger_prompt_change")
    await ctx.notify_prompts_changed()
    return "prompt list changed"


# -- tools that ask the client, in the handshake era -------------------------------------------------


@tool
async def test_missing_capability(ctx: Context) -> str:
    declared = ctx.session.client_capabilities
    if declared is None or declared.sampling is None:
        data = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool requires sampling", data)
    return "Client declared sampling capability; proceeding."


@tool
async def test_sampling(prompt: str, ctx: Context) -> str:
    found = await ctx.session.create_message(
        messages=[types.SamplingMessage(role="user", content=text(prompt))],
        max_tokens=100,
        related_request_id=ctx.request_id,  # without it the request goes to a stream that may not be there
    )
    return f"LLM response: {found.content.text if found.content.type == 'text' else 'No response'}"


def also(**schema: Any) -> Any:
    return Field(json_schema_extra=schema)


class Defaults(BaseModel):
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Annotated[str, also(enum=["active", "inactive", "pending"])] = "active"
    verified: bool = True


def titled(**titles: str) -> list[dict[str, str]]:
    return [{"const": value, "title": title} for value, title in titles.items()]


class Enums(BaseModel):
    untitledSingle: Annotated[str, also(enum=["active", "inactive", "pending"])]
    titledSingle: Annotated[str, also(oneOf=titled(low="Low", medium="Medium", high="High"))]
    untitledMulti: Annotated[list[str], also(items={**STRING, "enum": ["read", "write", "execute"]})]
    titledMulti: Annotated[
        list[str], also(items={"anyOf": titled(feature="Feature", bug="Fix", docs="Docs")})
    ]
    legacyEnum: Annotated[str, also(enum=["small", "medium"], enumNames=["Small", "Medium"])]


class Answer(BaseModel):
    response: str = Field(description="User's response")


def elicits(name: str, schema: type[BaseModel]) -> None:
    async def run(ctx: Context, message: str = "Please provide user information") -> str:
        found = await ctx.elicit(message=message, schema=schema)
        content = found.data.model_dump_json() if found.action == "accept" else "{}"
        return f"Elicitation completed: action={found.action}, content={content}"

    tool(run, name)


elicits("test_elicitation", Answer)
elicits("test_elicitation_sep1034_defaults", Defaults)
elicits("test_elicitation_sep1330_enums", Enums)


# -- tools that need several rounds, in the modern era -----------------------------------------------


def form(message: str, name: str, kind: str = "string") -> types.ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(prompt: str) -> types.CreateMessageRequest:
    messages = [types.SamplingMessage(role="user", content=text(prompt))]
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=messages, max_tokens=100)
    )


def in_two_rounds(name: str, done: str, state: str | None = None, **asked: types.InputRequest) -> None:
    async def run(ctx: Context) -> str | types.InputRequiredResult:
        given = ctx.input_responses or {}
        if asked.keys() <= given.keys() and ctx.request_state == state:
            return done.format(**given)
        return types.InputRequiredResult(input_requests=asked, request_state=state)

    tool(run, f"test_input_required_result_{name}")


WHO: Final = form("What is your name?", "name")
CAPITAL: Final = sample("What is the capital of France?")
CONFIRM: Final = form("Please confirm", "ok", "boolean")
ROOTS: Final = types.ListRootsRequest()
in_two_rounds("elicitation", "Hello, {user_name.content[name]}!", user_name=WHO)
in_two_rounds("sampling", "Model said: {capital_question.content.text}", capital_question=CAPITAL)
in_two_rounds("list_roots", "Client exposed {client_roots.roots}", client_roots=ROOTS)
in_two_rounds("request_state", "state-ok", "a nonce", confirm=CONFIRM)
in_two_rounds("tampered_state", "state-ok", "round 1", confirm=CONFIRM)
in_two_rounds("multiple_inputs", "All.", "several", user_name=WHO, greeting=CAPITAL, client_roots=ROOTS)


@tool
async def test_input_required_result_multi_round(ctx: Context) -> str | types.InputRequiredResult:
    state = json.loads(ctx.request_state) if ctx.request_state else {"round": 0}
    given = ctx.input_responses or {}
    if state["round"] == 2 and "step2" in given:
        return f"{state['name']} likes {given['step2'].content['color']}."
    asked: dict[str, types.InputRequest]
    if state["round"] == 1 and "step1" in given:
        asked = {"step2": form("Step 2: What is your favorite color?", "color")}
        state = {"round": 2, "name": given["step1"].content["name"]}
    else:  # the first round, or an answer that is missing or out of order
        asked, state = {"step1": form("Step 1: What is your name?", "name")}, {"round": 1}
    return types.InputRequiredResult(input_requests=asked, request_state=json.dumps(state))


@tool
async def test_input_required_result_capabilities(ctx: Context) -> types.InputRequiredResult:
    able = ctx.client_capabilities
    both: dict[str, types.InputRequest] = {"sampling": CAPITAL, "elicitation": WHO}
    asked = {name: one for name, one in both.items() if able is None or getattr(able, name) is not None}
    return types.InputRequiredResult(input_requests=asked, request_state="as declared")


# -- resources, prompts and the rest -----------------------------------------------------------------


@mcp.resource("test://static-text")
def static_text() -> str:
    return "This is the content of the static text resource."


@mcp.resource("test://static-binary")
def static_binary() -> bytes:
    return base64.b64decode(PNG)


@mcp.resource("test://template/{id}/data")
def template(id: str) -> str:  # noqa: A002 - the template's own name for it
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


@mcp.resource("test://watched-resource")
def watched() -> str:
    return "Watched resource content"


def user(content: Any) -> UserMessage:
    return UserMessage(role="user", content=content)


@prompt
def test_simple_prompt() -> list[UserMessage]:
    return [user(text("This is a simple prompt for testing."))]


@prompt
def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
    return [user(text(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))]


@prompt
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
    embedded = resource(resourceUri, "Embedded resource content for testing.")
    return [user(embedded), user(text("Please process the embedded resource above."))]


@prompt
def test_prompt_with_image() -> list[UserMessage]:
    return [user(IMAGE), user(text("Please analyze the image above."))]


@prompt
async def test_input_required_result_prompt(ctx: Context) -> list[UserMessage] | types.InputRequiredResult:
    if "user_context" in (given := ctx.input_responses or {}):
        return [user(text(f"Use the following context: {given['user_context'].content['context']}"))]
    return types.InputRequiredResult(input_requests={"user_context": form("What context?", "context")})


@mcp.completion()
async def complete(ref: Any, argument: Any, context: Any) -> types.Completion:
    return types.Completion(values=[], total=0, has_more=False)


async def accept(ctx: ServerRequestContext, params: Any) -> types.EmptyResult:
    return types.EmptyResult()


for method, kind in (
    ("logging/setLevel", types.SetLevelRequestParams),
    ("resources/subscribe", types.SubscribeRequestParams),
    ("resources/unsubscribe", types.UnsubscribeRequestParams),
):
    mcp._lowlevel_server.add_request_handler(method, kind, accept)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path)
    options = parser.parse_args()
    app = mcp.streamable_http_app(event_store=Events(), retry_interval=RETRY_MILLISECONDS)
    # h11, for httptools leaves blanks after a header's value, and the suite sends some
    config = uvicorn.Config(app, http="h11", log_level="warning", timeout_graceful_shutdown=1)
    with socket.create_server(("127.0.0.1", options.port), backlog=1024) as bound:
        if options.port_file is not None:
            unfinished = options.port_file.with_suffix(".unfinished")
            unfinished.write_text(str(bound.getsockname()[1]))
            unfinished.replace(options.port_file)
        uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main()
