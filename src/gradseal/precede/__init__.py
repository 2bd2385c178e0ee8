"""When something was made: beacons for *not before*, time-stamps and witnesses for *not after*."""
