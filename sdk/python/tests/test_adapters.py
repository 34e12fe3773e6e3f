"""The adapters, on the real packages. Each is skipped where its package is not installed.

The frameworks read annotations, those of local names included: they must not be strings here.
"""

import asyncio
import importlib
import json
from typing import Any, Optional

import pytest
from fake import Gateway

from aegisagent import AegisClient, ConfigurationError, DeniedError, NotCanonicalError, protect_tool


def call_of(gateway: Gateway) -> Any:
    call = gateway.body("authorize")["tool_call"]
    return call["resource"], call["parameters"]


class TestLangChain:
    @pytest.fixture(autouse=True)
    def package(self) -> None:
        pytest.importorskip("langchain_core")

    def merge(self, ran: list[Any]) -> Any:
        from langchain_core.runnables import RunnableConfig
        from langchain_core.tools import tool

        @tool
        def merge_pull_request(repo: str, pr_number: int, config: RunnableConfig, note: str = "n") -> str:
            """Merges."""
            ran.append(config)
            return f"merged {pr_number}"

        return merge_pull_request

    def test_a_tool_sync_and_async(self, gateway: Gateway, client: AegisClient) -> None:
        from aegisagent.langchain import protect

        ran: list[Any] = []
        original = self.merge(ran)
        tool = protect(original, client=client, tool="github")
        assert tool.args == original.args
        given = {"repo": "octo/pay", "pr_number": 7}
        assert tool.invoke(given) == "merged 7"
        assert call_of(gateway) == ("octo/pay#7", {"note": "n"})
        assert asyncio.run(tool.ainvoke(given)) == "merged 7"
        assert (len(ran), gateway.steps.count("authorize")) == (2, 2)
        gateway.script["authorize"] = ["deny"]
        with pytest.raises(DeniedError):
            tool.invoke(given)
        assert len(ran) == 2
        assert original.invoke(given) == "merged 7"
        assert gateway.steps.count("authorize") == 3

    def test_a_coroutine_tool(self, gateway: Gateway, client: AegisClient) -> None:
        from langchain_core.tools import tool

        from aegisagent.langchain import protect

        @tool
        async def refund(amount: int) -> str:
            """Refunds."""
            return f"refunded {amount}"

        guarded = protect(refund, client=client, tool="shop")
        assert asyncio.run(guarded.ainvoke({"amount": 3})) == "refunded 3"
        assert call_of(gateway) == (None, {"amount": 3})

    def test_a_class_of_tools(self, gateway: Gateway, client: AegisClient) -> None:
        from langchain_core.callbacks import CallbackManagerForToolRun
        from langchain_core.tools import BaseTool

        from aegisagent.langchain import protect

        class Refund(BaseTool):
            name: str = "refund"
            description: str = "Refunds."
            currency: str = "eur"

            def _run(self, amount: int, run_manager: Optional[CallbackManagerForToolRun] = None) -> str:
                assert run_manager is not None
                return f"{amount} {self.currency}"

        tool = protect(Refund(currency="usd"), client=client, tool="shop")
        assert isinstance(tool, Refund)
        assert tool.invoke({"amount": 3}) == "3 usd"
        assert asyncio.run(tool.ainvoke({"amount": 4})) == "4 usd"
        assert gateway.steps == ["catalog", "authorize", "outcome", "authorize", "outcome"]
        gateway.script["authorize"] = ["deny"]
        with pytest.raises(DeniedError):
            tool.invoke({"amount": 3})

    def test_in_a_graph(self, gateway: Gateway, client: AegisClient) -> None:
        pytest.importorskip("langgraph.prebuilt")
        from langchain_core.messages import AIMessage
        from langgraph.graph import END, START, MessagesState, StateGraph
        from langgraph.prebuilt import ToolNode

        from aegisagent.langchain import protect

        ran: list[Any] = []
        tools = ToolNode([protect(self.merge(ran), client=client, tool="github")], handle_tool_errors=str)
        graph = StateGraph(MessagesState)
        graph.add_node("tools", tools)
        graph.add_edge(START, "tools")
        graph.add_edge("tools", END)
        compiled = graph.compile()
        call = {"name": "merge_pull_request", "args": {"repo": "octo/pay", "pr_number": 7}, "id": "1"}
        gateway.script["authorize"] = ["default", "deny"]
        said = [
            compiled.invoke({"messages": [AIMessage("", tool_calls=[call])]})["messages"][-1].content for _ in range(2)
        ]
        assert said == ["merged 7", "denied: said: deny; reason because; receipt rcp_n1_1"]
        assert len(ran) == 1


class TestOpenAIAgents:
    @pytest.fixture(autouse=True)
    def package(self) -> None:
        pytest.importorskip("agents")

    def invoke(self, tool: Any, text: str) -> Any:
        from agents.tool_context import ToolContext

        context = ToolContext(context=None, tool_name=tool.name, tool_call_id="1", tool_arguments=text)
        return asyncio.run(tool.on_invoke_tool(context, text))

    def test_a_function_tool(self, gateway: Gateway, client: AegisClient) -> None:
        from agents import function_tool

        from aegisagent.openai_agents import protect

        ran: list[int] = []

        @function_tool
        def merge_pull_request(repo: str, pr_number: int) -> str:
            """Merges."""
            ran.append(pr_number)
            return f"merged {pr_number}"

        tool = protect(merge_pull_request, client=client, tool="github")
        assert (tool.name, tool.params_json_schema) == ("merge_pull_request", merge_pull_request.params_json_schema)
        text = json.dumps({"repo": "octo/pay", "pr_number": 7})
        assert self.invoke(tool, text) == "merged 7"
        assert call_of(gateway) == ("octo/pay#7", {})
        gateway.script["authorize"] = ["deny", "deny"]
        with pytest.raises(DeniedError):
            self.invoke(tool, text)
        telling = protect(merge_pull_request, client=client, tool="github", on_refusal=str)
        assert self.invoke(telling, text).startswith("denied: said: deny")
        with pytest.raises(NotCanonicalError):
            self.invoke(tool, '{"repo":"octo/pay","pr_number":7,"pr_number":8}')
        assert ran == [7]

    def test_under_the_frameworks_own_decorator(self, gateway: Gateway, client: AegisClient) -> None:
        from agents import function_tool

        @function_tool
        @protect_tool(client=client, tool="shop", action="refund")
        def refund(amount: int) -> str:
            """Refunds."""
            return f"refunded {amount}"

        assert self.invoke(refund, '{"amount": 5}') == "refunded 5"
        gateway.script["authorize"] = ["deny"]
        assert "refunded" not in self.invoke(refund, '{"amount": 5}')

    def test_an_agents_run(self, gateway: Gateway, client: AegisClient) -> None:
        from agents import Agent, RunConfig, Runner, function_tool

        from aegisagent.openai_agents import protect

        @function_tool
        def refund(amount: int) -> str:
            """Refunds."""
            return f"refunded {amount}"

        agent = Agent("a", tools=[protect(refund, client=client, tool="shop")], model=scripted_model())
        result = asyncio.run(Runner.run(agent, "refund 5", run_config=RunConfig(tracing_disabled=True)))
        assert result.final_output == "done: refunded 5"
        assert call_of(gateway) == (None, {"amount": 5})


def scripted_model() -> Any:
    """Calls the tool once, then says what it got."""
    from agents import Model, ModelResponse, Usage
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

    class Scripted(Model):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            asked = kwargs["input"] if "input" in kwargs else args[1]
            outputs = [] if isinstance(asked, str) else [i for i in asked if i.get("type") == "function_call_output"]
            if not outputs:
                made: Any = ResponseFunctionToolCall(
                    type="function_call", call_id="1", name="refund", arguments='{"amount": 5}'
                )
            else:
                text = ResponseOutputText(type="output_text", text=f"done: {outputs[0]['output']}", annotations=[])
                made = ResponseOutputMessage(
                    id="m", type="message", role="assistant", status="completed", content=[text]
                )
            return ModelResponse(output=[made], usage=Usage(), response_id=None)

        def stream_response(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    return Scripted()


def mcp_server() -> tuple[Any, Any]:
    """`MCPServer`, which is `FastMCP` in mcp 1, and its `Context`."""
    try:
        module: Any = importlib.import_module("mcp.server.mcpserver")
    except ImportError:
        module = importlib.import_module("mcp.server.fastmcp")
        return module.FastMCP, module.Context
    return module.MCPServer, module.Context


class TestMcp:
    @pytest.fixture(autouse=True)
    def package(self) -> None:
        pytest.importorskip("mcp")

    def server(self, ran: list[Any]) -> Any:
        make_server, context = mcp_server()
        server = make_server("test")

        def merge_pull_request(repo: str, pr_number: int, ctx: context, note: str = "n") -> str:  # type: ignore[valid-type]
            """Merges."""
            ran.append(ctx)
            return f"merged {pr_number}"

        async def refund(amount: int) -> str:
            """Refunds."""
            ran.append(amount)
            return f"refunded {amount}"

        server.add_tool(merge_pull_request)
        server.add_tool(refund)
        return server

    def call(self, server: Any, name: str, arguments: dict[str, Any]) -> tuple[bool, str]:
        async def main() -> tuple[bool, str]:
            mcp: Any = importlib.import_module("mcp")
            if not hasattr(mcp, "Client"):
                memory: Any = importlib.import_module("mcp.shared.memory")
                async with memory.create_connected_server_and_client_session(server._mcp_server) as session:
                    result = await session.call_tool(name, arguments)
                    return result.isError, result.content[0].text
            async with mcp.Client(server) as client:
                result = await client.call_tool(name, arguments)
                return result.is_error, result.content[0].text

        return asyncio.run(main())

    def test_all_tools_of_a_server(self, gateway: Gateway, client: AegisClient) -> None:
        from aegisagent.mcp import protect

        ran: list[Any] = []
        server = self.server(ran)
        protect(server, "merge_pull_request", client=client, tool="github")
        protect(server, "refund", client=client, tool="shop")
        given = {"repo": "octo/pay", "pr_number": 7}
        assert self.call(server, "merge_pull_request", given) == (False, "merged 7")
        assert call_of(gateway) == ("octo/pay#7", {"note": "n"})
        assert self.call(server, "refund", {"amount": 5}) == (False, "refunded 5")
        gateway.script["authorize"] = ["deny", "deny"]
        for name, arguments in (("merge_pull_request", given), ("refund", {"amount": 5})):
            failed, said = self.call(server, name, arguments)
            assert failed
            assert "said: deny; reason because; receipt rcp_n1_1" in said
        assert len(ran) == 2

    def test_under_the_servers_own_decorator(self, gateway: Gateway, client: AegisClient) -> None:
        server = self.server([])

        @server.tool()  # type: ignore[untyped-decorator]
        @protect_tool(client=client, tool="shop", action="refund")
        def give_back(amount: int) -> str:
            """Gives back."""
            return f"gave {amount}"

        assert self.call(server, "give_back", {"amount": 5}) == (False, "gave 5")
        gateway.script["authorize"] = ["deny"]
        assert self.call(server, "give_back", {"amount": 5})[0]

    def test_what_is_no_server(self, client: AegisClient) -> None:
        from aegisagent.mcp import protect

        with pytest.raises(ConfigurationError):
            protect(object(), client=client, tool="github")
        with pytest.raises(ConfigurationError):
            protect(self.server([]), "nothing", client=client, tool="github")
