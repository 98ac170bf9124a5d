-- Prints what wrk measured as one line of JSON.  Only `done` is defined, so
-- that nothing of this runs while the load is on; with the argument "varied"
-- requests differ in their paths and in a header.

init = function(args)
  if args[1] ~= "varied" then
    return
  end
  local requests, count, last = {}, tonumber(args[2]), 0
  for number = 1, count do
    local headers = {["X-Request-Id"] = string.format("%08x-%d", number * 2654435761 % 4294967296, number)}
    requests[number] = wrk.format("GET", string.format("%s-%d", wrk.path, number), headers)
  end
  request = function()
    last = last % count + 1
    return requests[last]
  end
end

done = function(summary, latency, requests)
  io.write(string.format(
    '\n{"seconds": %.6f, "requests": %.0f, "bytes": %.0f, "p50": %.9f, "p99": %.9f, ' ..
    '"connect": %.0f, "read": %.0f, "write": %.0f, "timeout": %.0f, "status": %.0f}\n',
    summary.duration / 1e6, summary.requests, summary.bytes,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.timeout, summary.errors.status))
end
