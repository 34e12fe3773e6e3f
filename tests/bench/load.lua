-- What wrk sends: wrk -s load.lua <base url> -- <kind> [<agent token>]
-- "paced" is "read" with a millisecond of rest before each request.
--
-- Requests go round over 64 repositories. `done` prints one line of JSON, times in microseconds.

local REPOSITORIES = 64
local requests, turn = {}, 0

local kinds = {
  read = function(repo) return "GET", "/repos/octo/" .. repo .. "/languages" end,
  repository = function(repo) return "GET", "/repos/octo/" .. repo end,
  write = function(repo)
    return "POST", "/repos/octo/" .. repo .. "/issues", '{"title":"Found a bug","body":"It happens on every start."}'
  end,
  authorize = function(repo)
    return "POST", "/v1/authorize",
      '{"tool_call":{"tool":"github","action":"create_issue","resource":"octo/' .. repo
        .. '","mutates_state":true,"parameters":{"title":"Found a bug"}}}'
  end,
}

kinds.paced = kinds.read

function init(args)
  -- wrk looks for this function once `init` is over, and does not count the rest as latency.
  if args[1] == "paced" then delay = function() return 1 end end
  local kind = kinds[args[1]] or error("unknown kind of request")
  local base = wrk.path == "/" and "" or wrk.path
  local headers = { Accept = "application/vnd.github+json", ["User-Agent"] = "bench", Host = wrk.headers["Host"] }
  if args[2] then headers["Authorization"] = "Bearer " .. args[2] end
  for i = 1, REPOSITORIES do
    local method, path, body = kind("r" .. i)
    headers["Content-Type"] = body and "application/json" or nil
    requests[i] = wrk.format(method, base .. path, headers, body)
  end
end

function request()
  turn = turn % REPOSITORIES + 1
  return requests[turn]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.status, e.connect + e.read + e.write + e.timeout))
end
