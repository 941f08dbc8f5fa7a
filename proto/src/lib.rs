//! Wire protocol between coordinators, workers and programs. Nothing speaks it yet: one machine needs none.
