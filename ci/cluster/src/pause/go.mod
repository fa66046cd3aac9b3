module frangible.invalid/cluster/pause

go 1.24
