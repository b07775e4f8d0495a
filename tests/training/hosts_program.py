"""`whichcar` with the network of `devices_program` instead of ResNet-50."""

from devices_program import small_network

from whichcar.__main__ import main
from whichcar.training import train as stage

stage.build_models = small_network
main()
