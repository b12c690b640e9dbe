"""int8 of a graph: rounding of weights, ranges of activations, layers that are kept in fp32."""
