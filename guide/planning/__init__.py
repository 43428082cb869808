"""What a run will cost before anything is loaded: networks without weights, their operations counted, and this machine's speed at each."""
