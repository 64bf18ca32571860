"""What batch scoring is measured with: inputs, limits and scripts as people write them."""
