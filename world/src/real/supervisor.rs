//! The node's supervisor, which outlives the agent.
