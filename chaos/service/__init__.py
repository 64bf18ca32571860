"""The torture trials: what the service promises when it is overloaded, killed or attacked, asked of real servers."""
