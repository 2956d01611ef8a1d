/* sluice/abi/tensor.h - memory that may be on a device, and when it may be read.
 *
 * Handle plus offset instead of a pointer, because a Vulkan buffer has no address to give away.
 */
#ifndef SLUICE_ABI_TENSOR_H
#define SLUICE_ABI_TENSOR_H
#include <sluice/abi/base.h>
SLUICE_C_BEGIN

#define SLUICE_DEV_CPU 1
#define SLUICE_DEV_CUDA 2
#define SLUICE_DEV_HIP 3
#define SLUICE_DEV_VULKAN 4
#define SLUICE_DEV_OPAQUE 100 /* a handle that only its backend understands; tensor_read works on it */

#define SLUICE_DT_F32 1
#define SLUICE_DT_F16 2
#define SLUICE_DT_BF16 3
#define SLUICE_DT_I32 4
#define SLUICE_DT_U32 5
#define SLUICE_DT_I8 6
#define SLUICE_DT_F8E4M3 7
#define SLUICE_DT_F8E5M2 8
#define SLUICE_DT_BIT(dt) (1u << (dt)) /* element of a set of dtypes */

typedef struct sluice_tensor {
  uint32_t struct_size;
  int32_t dtype;       /* SLUICE_DT_* */
  int32_t device_type; /* SLUICE_DEV_* */
  int32_t device_id;
  uint64_t handle; /* CPU an address, CUDA and HIP a device pointer, Vulkan a VkBuffer */
  uint64_t byte_offset;
  uint32_t ndim;
  uint32_t reserved;
  int64_t shape[4];
  int64_t stride[4]; /* in elements, 1 for the innermost */
} sluice_tensor;

/* NONE: may be read now. STREAM: enqueue on the stream in `handle`. TIMELINE: the semaphore in `handle` must have
 * reached `value`. */
#define SLUICE_SYNC_NONE 0
#define SLUICE_SYNC_STREAM 1
#define SLUICE_SYNC_TIMELINE 2
typedef struct sluice_sync {
  uint32_t struct_size;
  int32_t type; /* SLUICE_SYNC_* */
  uint64_t handle;
  uint64_t value;
} sluice_sync;

SLUICE_C_END
#endif
