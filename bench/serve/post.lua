-- Posts the file BODY with the content type CT and, if HDR is set ("Name: value"), one header more; prints one line of
-- JSON at the end, with latencies in milliseconds.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
wrk.headers["Content-Type"] = os.getenv("CT") or "application/json"
local header = os.getenv("HDR")
if header and #header > 0 then
  local name, value = header:match("^([^:]+):%s*(.+)$")
  wrk.headers[name] = value
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format('JSON {"n":%d,"rps":%.1f,"p50":%.3f,"p99":%.3f,"errors":%d}\n',
    summary.requests, summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.status + e.connect + e.read + e.write + e.timeout))
end
