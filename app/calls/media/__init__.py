"""Sound on its way: uplink, downlink, playout, false interruptions, outboxes."""
