// out[token, n] = in[token, :] . dequantised row n of a Q8_0 matrix as the file has it. One invocation per output.
//
// Everything is reached through device addresses: weights of 34-byte blocks need no descriptor and no alignment beyond 2.
// The number of tokens is data, so that a recorded dispatch serves every step of its bucket.
#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_scalar_block_layout : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_8bit_storage : require

layout(local_size_x = 32) in;

struct Block {
  float16_t d;
  int8_t q[32];
};
layout(buffer_reference, scalar, buffer_reference_align = 2) readonly buffer Blocks { Block block[]; };
layout(buffer_reference, scalar, buffer_reference_align = 4) readonly buffer Inputs { float x[]; };
layout(buffer_reference, scalar, buffer_reference_align = 4) writeonly buffer Outputs { float y[]; };
layout(buffer_reference, scalar, buffer_reference_align = 4) readonly buffer Counts { uint tokens; };

layout(push_constant, scalar) uniform Push {
  Counts counts;
  Blocks weight;
  Inputs source;
  Outputs target;
  uint n_in, n_out;
};

void main() {
  const uint n = gl_GlobalInvocationID.x, token = gl_GlobalInvocationID.y;
  if (n >= n_out || token >= counts.tokens) return;
  const uint blocks = n_in / 32;
  float sum = 0;
  for (uint b = 0; b < blocks; ++b) {
    float part = 0;
    for (uint i = 0; i < 32; ++i)
      part += float(int(weight.block[n * blocks + b].q[i])) * source.x[token * n_in + b * 32 + i];
    sum += float(weight.block[n * blocks + b].d) * part;
  }
  target.y[token * n_out + n] = sum;
}
