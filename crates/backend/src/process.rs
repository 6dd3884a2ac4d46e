//! Replicas as processes of this machine: `modelway serve`, each in its own process group.
