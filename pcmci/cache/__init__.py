"""The contract between the phases: what a store holds, and all that is done with one."""
