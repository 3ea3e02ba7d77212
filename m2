runnel_link_batches_total{transport="sse"} 1
runnel_link_events_total{transport="sse"} 0
