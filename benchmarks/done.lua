-- Prints what wrk measured as one line of JSON.  Only `done` is defined, so
-- that nothing of this runs while the load is on.
done = function(summary, latency, requests)
  io.write(string.format(
    '\n{"seconds": %.6f, "requests": %.0f, "bytes": %.0f, "p50": %.9f, "p99": %.9f, ' ..
    '"connect": %.0f, "read": %.0f, "write": %.0f, "timeout": %.0f, "status": %.0f}\n',
    summary.duration / 1e6, summary.requests, summary.bytes,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.timeout, summary.errors.status))
end
