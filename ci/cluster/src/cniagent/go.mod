module frangible.invalid/cluster/cniagent

go 1.24
