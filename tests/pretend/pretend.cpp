// A device of its own without hardware: its memory is the CPU's, and so are its kernels, but tensors of the CPU among the
// arguments of an operation are refused where CUDA refuses them, and autocast has CUDA's lists of operations.
// It is torch's device type PrivateUse1; device.py gives it a name.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/NativeFunctions.h>
#include <ATen/Operators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_conj.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <cstring>
#include <set>

namespace {

constexpr auto TYPE = c10::DeviceType::PrivateUse1;

at::Device the_device() { return at::Device(TYPE, 0); }

struct Allocator final : at::Allocator {
  at::DataPtr allocate(size_t n_bytes) override {
    void* memory = c10::alloc_cpu(n_bytes);
    return {memory, memory, &c10::free_cpu, the_device()};
  }
  at::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* target, const void* source, std::size_t n_bytes) const override {
    std::memcpy(target, source, n_bytes);
  }
};

Allocator allocator;
REGISTER_ALLOCATOR(TYPE, &allocator);

// There is one device, and one stream.
struct Guard final : c10::impl::NoOpDeviceGuardImpl<TYPE> {
  at::Device exchangeDevice(at::Device) const override { return the_device(); }
  at::Device getDevice() const override { return the_device(); }
  c10::Stream getStream(at::Device) const noexcept override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  c10::Stream getNewStream(at::Device, int) const override { return stream(); }
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, the_device()); }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::make_generator<at::CPUGeneratorImpl>(0);
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(0);
    return generator;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t n_bytes) const override {
    auto* inner = storage.unsafeGetStorageImpl();
    at::DataPtr larger = allocator.allocate(n_bytes);
    std::memcpy(larger.get(), inner->data(), std::min(n_bytes, inner->nbytes()));
    inner->set_data_ptr_noswap(std::move(larger));
    inner->set_nbytes(n_bytes);
  }
  // Memory of the host from which the device could copy while it computes.
  at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
};

// A tensor of the CPU over the same memory.
at::Tensor on_cpu(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.device().type() != TYPE) return tensor;
  auto storage = tensor.storage();
  auto n = static_cast<int64_t>(storage.nbytes() / tensor.element_size());
  auto options = at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU);
  auto flat = at::from_blob(storage.mutable_data(), {n}, [storage](void*) {}, options);
  auto viewed = at::as_strided(flat, tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return tensor.is_conj() ? at::_conj(viewed) : viewed;
}

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& source, const at::Tensor& target, bool) {
  on_cpu(target).copy_(on_cpu(source));
  return target;
}

at::Tensor copy_from_and_resize(const at::Tensor& source, const at::Tensor& target) {
  if (target.sizes() != source.sizes()) const_cast<at::Tensor&>(target).resize_(source.sizes());
  return copy_from(source, target, false);
}

at::Scalar item(const at::Tensor& tensor) { return on_cpu(tensor).item(); }

const at::Tensor& resize_(const at::Tensor& tensor, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* inner = tensor.unsafeGetTensorImpl();
  auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  int64_t n = 1;
  for (auto length : sizes) n *= length;
  size_t n_bytes = (n + inner->storage_offset()) * tensor.element_size();
  if (n_bytes > inner->storage().nbytes()) {
    at::detail::getPrivateUse1Hooks().resizePrivateUse1Bytes(inner->storage(), n_bytes);
  }
  inner->set_sizes_contiguous(sizes);
  return tensor;
}

at::Tensor& set_(at::Tensor& tensor, at::Storage storage, int64_t offset, c10::IntArrayRef size,
                 c10::IntArrayRef stride) {
  auto* inner = tensor.unsafeGetTensorImpl();
  inner->set_storage_keep_dtype(storage);
  inner->set_storage_offset(offset);
  inner->set_sizes_and_strides(size, stride);
  return tensor;
}

// CUDA accepts indices on the CPU.
const std::set<std::string> INDICES_ANYWHERE = {"aten::index.Tensor",   "aten::index.Tensor_out",
                                                "aten::index_put",      "aten::index_put_",
                                                "aten::_index_put_impl_", "aten::_unsafe_index.Tensor"};

// Every other operation: refuse tensors of two devices, and compute on the CPU.
void fallback(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  const auto& schema = operation.schema();
  auto name = schema.name() + (schema.overload_name().empty() ? "" : "." + schema.overload_name());
  bool has_ours = false, has_cpu = false;
  auto look = [&](const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    if (tensor.device().type() == TYPE) has_ours = true;
    else if (tensor.dim() > 0) has_cpu = true;  // a number on the CPU is accepted everywhere
  };
  auto n = schema.arguments().size();
  for (auto value = stack->end() - n; value != stack->end(); ++value) {
    if (value->isTensor()) look(value->toTensor());
    else if (value->isTensorList()) for (const auto& tensor : value->toTensorVector()) look(tensor);
    else if (value->isOptionalTensorList() && !INDICES_ANYWHERE.count(name))
      for (const auto& tensor : value->toOptionalTensorVector()) if (tensor) look(*tensor);
  }
  TORCH_CHECK(!(has_ours && has_cpu), "Expected all tensors to be on the same device, but found cpu and pretend:0 (",
              name, ")");
  at::native::cpu_fallback(operation, stack);
}

Hooks hooks;
const int registered = (at::RegisterPrivateUse1HooksInterface(&hooks), 0);

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("_copy_from", TORCH_FN(copy_from));
  library.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  library.impl("_local_scalar_dense", TORCH_FN(item));
  library.impl("resize_", TORCH_FN(resize_));
  library.impl("set_.source_Storage_storage_offset", TORCH_FN(set_));
  library.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  library.impl("view", TORCH_FN(at::native::view));
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  library.impl("unfold", TORCH_FN(at::native::unfold));
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) { library.fallback(torch::CppFunction::makeFallthrough()); }

namespace at::autocast {
#define LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define FLOAT32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define FLOAT32_OUTPUT(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define WIDEST(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {  // the macro below requires the name m
  AT_FORALL_LOWER_PRECISION_FP(LOWER)
  AT_FORALL_FP32(FLOAT32)
  AT_FORALL_FP32_SET_OPT_DTYPE(FLOAT32_OUTPUT)
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
  AT_FORALL_PROMOTE(WIDEST)
}
}  // namespace at::autocast
