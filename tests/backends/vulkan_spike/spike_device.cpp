#include "tests/backends/vulkan_spike/spike_device.hpp"

#include <sluice/sdk/error.hpp>

#include <cstring>

namespace sluice::test {
namespace {

using namespace graph;

constexpr uint32_t kLinearShader[] =
#include "linear_q8_0.spv.inc"
    ;
constexpr uint32_t kGroupSize = 32;  // local_size_x of the shader

struct Push {
  VkDeviceAddress counts, weight, in, out;
  uint32_t n_in, n_out;
};

void check(VkResult result, const char *call) {
  if (result != VK_SUCCESS)
    throw sdk::Error(SLUICE_E_UNAVAILABLE, std::string(call) + " returned " + std::to_string(result));
}

template <class T>
T info(VkStructureType type) {
  T t{};
  t.sType = type;
  return t;
}

}  // namespace

SpikeDevice::SpikeDevice() : SpikeDevice(Empty{}) {
  auto app = info<VkApplicationInfo>(VK_STRUCTURE_TYPE_APPLICATION_INFO);
  app.apiVersion = VK_API_VERSION_1_2;
  auto create = info<VkInstanceCreateInfo>(VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO);
  create.pApplicationInfo = &app;
  check(vkCreateInstance(&create, nullptr, &instance_), "vkCreateInstance");
  make_device();
  make_pipeline();
  counts_ = allocate(sizeof(uint32_t), BufferUse::kArgs);
}

void SpikeDevice::make_device() {
  uint32_t n = 1;
  vkEnumeratePhysicalDevices(instance_, &n, &physical_);  // the first will do
  if (n == 0) throw sdk::Error(SLUICE_E_UNAVAILABLE, "no Vulkan device");
  VkPhysicalDeviceProperties properties;
  vkGetPhysicalDeviceProperties(physical_, &properties);
  std::memcpy(device_name_, properties.deviceName, sizeof device_name_);
  std::vector<VkQueueFamilyProperties> families(16);
  uint32_t n_families = static_cast<uint32_t>(families.size());
  vkGetPhysicalDeviceQueueFamilyProperties(physical_, &n_families, families.data());
  while (queue_family_ < n_families && (families[queue_family_].queueFlags & VK_QUEUE_COMPUTE_BIT) == 0)
    ++queue_family_;

  auto v11 = info<VkPhysicalDeviceVulkan11Features>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES);
  auto v12 = info<VkPhysicalDeviceVulkan12Features>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
  auto features = info<VkPhysicalDeviceFeatures2>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2);
  features.pNext = &v11;
  v11.pNext = &v12;
  vkGetPhysicalDeviceFeatures2(physical_, &features);
  if (queue_family_ == n_families || !v12.bufferDeviceAddress || !v12.timelineSemaphore || !v12.scalarBlockLayout ||
      !v12.storageBuffer8BitAccess || !v11.storageBuffer16BitAccess)
    throw sdk::Error(SLUICE_E_UNAVAILABLE, std::string(device_name_) + " lacks a feature that the spike needs");

  const float priority = 1;
  auto queue = info<VkDeviceQueueCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO);
  queue.queueFamilyIndex = queue_family_;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  auto create = info<VkDeviceCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO);
  create.pNext = &features;
  create.queueCreateInfoCount = 1;
  create.pQueueCreateInfos = &queue;
  check(vkCreateDevice(physical_, &create, nullptr, &device_), "vkCreateDevice");
  vkGetDeviceQueue(device_, queue_family_, 0, &queue_);

  auto pool = info<VkCommandPoolCreateInfo>(VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO);
  pool.queueFamilyIndex = queue_family_;
  check(vkCreateCommandPool(device_, &pool, nullptr, &pool_), "vkCreateCommandPool");
  auto type = info<VkSemaphoreTypeCreateInfo>(VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO);
  type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
  auto semaphore = info<VkSemaphoreCreateInfo>(VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO);
  semaphore.pNext = &type;
  check(vkCreateSemaphore(device_, &semaphore, nullptr, &timeline_), "vkCreateSemaphore");
}

void SpikeDevice::make_pipeline() {
  const VkPushConstantRange range{VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof(Push)};
  auto layout = info<VkPipelineLayoutCreateInfo>(VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO);
  layout.pushConstantRangeCount = 1;  // and no descriptor set at all
  layout.pPushConstantRanges = &range;
  check(vkCreatePipelineLayout(device_, &layout, nullptr, &layout_), "vkCreatePipelineLayout");
  auto code = info<VkShaderModuleCreateInfo>(VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO);
  code.codeSize = sizeof kLinearShader;
  code.pCode = kLinearShader;
  VkShaderModule shader = VK_NULL_HANDLE;
  check(vkCreateShaderModule(device_, &code, nullptr, &shader), "vkCreateShaderModule");
  auto create = info<VkComputePipelineCreateInfo>(VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO);
  create.stage = info<VkPipelineShaderStageCreateInfo>(VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO);
  create.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  create.stage.module = shader;
  create.stage.pName = "main";
  create.layout = layout_;
  const VkResult made = vkCreateComputePipelines(device_, VK_NULL_HANDLE, 1, &create, nullptr, &pipeline_);
  vkDestroyShaderModule(device_, shader, nullptr);
  check(made, "vkCreateComputePipelines");
}

SpikeDevice::~SpikeDevice() {
  if (device_ != VK_NULL_HANDLE) {
    vkDeviceWaitIdle(device_);
    for (uint32_t i = 0; i < buffers_.size(); ++i) free({i + 1});
    vkDestroySemaphore(device_, timeline_, nullptr);
    vkDestroyPipeline(device_, pipeline_, nullptr);
    vkDestroyPipelineLayout(device_, layout_, nullptr);
    vkDestroyCommandPool(device_, pool_, nullptr);
    vkDestroyDevice(device_, nullptr);
  }
  if (instance_ != VK_NULL_HANDLE) vkDestroyInstance(instance_, nullptr);
}

void SpikeDevice::refuse(const char *op) const {
  throw sdk::Error(SLUICE_E_UNSUPPORTED, std::string("the spike has no op ") + op);
}

uint32_t SpikeDevice::host_memory_type(uint32_t allowed) const {
  constexpr VkMemoryPropertyFlags kWanted = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  VkPhysicalDeviceMemoryProperties memory;
  vkGetPhysicalDeviceMemoryProperties(physical_, &memory);
  for (uint32_t i = 0; i < memory.memoryTypeCount; ++i)
    if ((allowed >> i & 1) != 0 && (memory.memoryTypes[i].propertyFlags & kWanted) == kWanted) return i;
  throw sdk::Error(SLUICE_E_UNAVAILABLE, "no coherent host-visible memory");
}

Buffer SpikeDevice::allocate(uint64_t size_bytes, BufferUse) {
  DeviceBuffer b;
  auto create = info<VkBufferCreateInfo>(VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO);
  create.size = size_bytes;
  create.usage = VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT;
  check(vkCreateBuffer(device_, &create, nullptr, &b.buffer), "vkCreateBuffer");
  VkMemoryRequirements need;
  vkGetBufferMemoryRequirements(device_, b.buffer, &need);
  auto flags = info<VkMemoryAllocateFlagsInfo>(VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO);
  flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT;
  auto memory = info<VkMemoryAllocateInfo>(VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO);
  memory.pNext = &flags;
  memory.allocationSize = need.size;
  memory.memoryTypeIndex = host_memory_type(need.memoryTypeBits);
  check(vkAllocateMemory(device_, &memory, nullptr, &b.memory), "vkAllocateMemory");
  check(vkBindBufferMemory(device_, b.buffer, b.memory, 0), "vkBindBufferMemory");
  check(vkMapMemory(device_, b.memory, 0, VK_WHOLE_SIZE, 0, &b.mapped), "vkMapMemory");
  std::memset(b.mapped, 0, size_bytes);
  auto address = info<VkBufferDeviceAddressInfo>(VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO);
  address.buffer = b.buffer;
  b.address = vkGetBufferDeviceAddress(device_, &address);
  buffers_.push_back(b);
  return {static_cast<uint32_t>(buffers_.size())};
}

void SpikeDevice::upload(Buffer buffer, const void *from, uint64_t size_bytes) {
  std::memcpy(mapped(buffer), from, size_bytes);
}

void SpikeDevice::free(Buffer buffer) {
  DeviceBuffer &b = buffers_[buffer.id - 1];
  vkDestroyBuffer(device_, b.buffer, nullptr);
  vkFreeMemory(device_, b.memory, nullptr);
  b = {};
}

WeightId SpikeDevice::add_weight(const WeightSource &source) {
  const WeightSegment &s = source.segments[0];
  const uint64_t bytes = s.rows * model_file::row_bytes(s.type, source.cols).value();
  const Buffer buffer = allocate(bytes, BufferUse::kDevice);
  upload(buffer, s.data, bytes);
  weights_bytes_ += bytes;
  weights_.push_back(buffer);
  return {static_cast<uint32_t>(weights_.size())};
}

bool SpikeDevice::begin_step(const StepShape &shape, const StepArgs &args) {
  args_ = &args;
  for (bucket_ = 1; bucket_ < shape.tokens;) bucket_ *= 2;
  *static_cast<uint32_t *>(mapped(counts_)) = shape.tokens;
  if (recorded_.count(bucket_) != 0) return false;
  auto allocate_info = info<VkCommandBufferAllocateInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO);
  allocate_info.commandPool = pool_;
  allocate_info.commandBufferCount = 1;
  check(vkAllocateCommandBuffers(device_, &allocate_info, &recorded_[bucket_]), "vkAllocateCommandBuffers");
  const auto begin = info<VkCommandBufferBeginInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO);
  check(vkBeginCommandBuffer(recorded_[bucket_], &begin), "vkBeginCommandBuffer");
  vkCmdBindPipeline(recorded_[bucket_], VK_PIPELINE_BIND_POINT_COMPUTE, pipeline_);
  return recording_ = true;
}

void SpikeDevice::linear(const LinearOp &op) {
  const Push push{address(counts_),
                  address(weights_[op.weight.id - 1]),
                  address(args_->activations[op.in]),
                  address(args_->activations[op.out]),
                  op.n_in,
                  op.n_out};
  vkCmdPushConstants(recorded_[bucket_], layout_, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof push, &push);
  vkCmdDispatch(recorded_[bucket_], (op.n_out + kGroupSize - 1) / kGroupSize, bucket_, 1);
  auto barrier = info<VkMemoryBarrier>(VK_STRUCTURE_TYPE_MEMORY_BARRIER);
  barrier.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT;
  barrier.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_HOST_READ_BIT;
  vkCmdPipelineBarrier(recorded_[bucket_], VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                       VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, nullptr, 0,
                       nullptr);
}

uint64_t SpikeDevice::end_step() {
  if (recording_) check(vkEndCommandBuffer(recorded_[bucket_]), "vkEndCommandBuffer");
  recording_ = false;
  ++fence_;
  auto timeline = info<VkTimelineSemaphoreSubmitInfo>(VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO);
  timeline.signalSemaphoreValueCount = 1;
  timeline.pSignalSemaphoreValues = &fence_;
  auto submit = info<VkSubmitInfo>(VK_STRUCTURE_TYPE_SUBMIT_INFO);
  submit.pNext = &timeline;
  submit.commandBufferCount = 1;
  submit.pCommandBuffers = &recorded_[bucket_];
  submit.signalSemaphoreCount = 1;
  submit.pSignalSemaphores = &timeline_;
  check(vkQueueSubmit(queue_, 1, &submit, VK_NULL_HANDLE), "vkQueueSubmit");
  return fence_;
}

bool SpikeDevice::wait(uint64_t fence, uint64_t timeout_ns) {
  auto wait_info = info<VkSemaphoreWaitInfo>(VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO);
  wait_info.semaphoreCount = 1;
  wait_info.pSemaphores = &timeline_;
  wait_info.pValues = &fence;
  const VkResult result = vkWaitSemaphores(device_, &wait_info, timeout_ns);
  if (result == VK_TIMEOUT) return false;
  check(result, "vkWaitSemaphores");
  return true;
}

}  // namespace sluice::test
