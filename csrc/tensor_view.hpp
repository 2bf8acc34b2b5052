// SPDX-License-Identifier: Apache-2.0
// What a call needs to know of a torch tensor: pointer, shape, type, device, and that it is dense.
//
// Tensors are read through DLPack's exchange table where torch has one (1 us for five tensors),
// else through their Python attributes. The structs below are DLPack's ABI (versions 1.x).
#pragma once

#include <pybind11/pybind11.h>
#include <stdint.h>

#include <string>
#include <utility>

#include "core/view.hpp"

namespace pf {

namespace py = pybind11;

namespace dlpack {
struct Device {
  int32_t type, id;
};
struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct ExchangeApi {
  struct {
    uint32_t major, minor;
    void* previous;
  } header;
  void* managed_tensor_allocator;
  void* managed_tensor_from_py_object;
  void* managed_tensor_to_py_object;
  int (*tensor_from_py_object)(void* object, Tensor* out);
  int (*current_work_stream)(int32_t type, int32_t id, void** stream);
};
constexpr int32_t kCpu = 1, kCuda = 2;
constexpr uint8_t kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4;
}  // namespace dlpack

[[noreturn]] void bad_value(const char* name, const std::string& expected, const std::string& got);
[[noreturn]] void bad_type(const char* name, const std::string& expected, const std::string& got);

class TensorView {
 public:
  static constexpr int kMaxDims = 64;

  // `argument` is its name in messages. With `densify` a strided tensor is copied to a
  // dense one that lives as long as the view; else it is refused.
  TensorView(py::handle tensor, const char* argument, bool densify);
  TensorView(const TensorView& other) : TensorView(other, other.owned_) {}
  TensorView(TensorView&& other) noexcept : TensorView(other, std::move(other.owned_)) {}
  TensorView& operator=(const TensorView&) = delete;
  TensorView& operator=(TensorView&&) = delete;
  ~TensorView() = default;

  const char* name;
  void* data = nullptr;
  int ndim = 0;
  int64_t shape[kMaxDims];
  uint8_t code = 0, bits = 0;

  int64_t numel() const { return numel_; }
  int64_t bytes() const { return numel_ * (bits / 8); }
  int64_t n_chains() const;     // first dimension; ValueError for a 0-d tensor
  int64_t dim() const;          // product of the others
  Dtype dtype() const;          // TypeError unless float32 or float64
  Dtype storage_dtype() const;  // likewise, or bfloat16 or float16
  std::string shape_text() const;

  // The CUDA device that holds the memory; negative for the CPU.
  int device() const { return device_type_ == dlpack::kCuda ? device_id_ : -1; }

  void must_be(Dtype dtype) const;
  void must_be_with(const TensorView& other) const;  // on the same device
  void must_be_int64() const;
  void must_have_shape_of(const TensorView& other) const;
  void must_have_numel(int64_t n, const char* meaning) const;
  void must_not_overlap(const TensorView& other, bool may_be_same) const;
  bool overlaps(const TensorView& other) const;

 private:
  // A copy reads no more of the shape than there is: these are made many at a call.
  TensorView(const TensorView& other, py::object owned)
      : name(other.name),
        data(other.data),
        ndim(other.ndim),
        code(other.code),
        bits(other.bits),
        dense_(other.dense_),
        device_type_(other.device_type_),
        device_id_(other.device_id_),
        numel_(other.numel_),
        owned_(std::move(owned)) {
    for (int i = 0; i < ndim; ++i) shape[i] = other.shape[i];
  }
  void read(py::handle tensor);
  bool read_by_exchange(py::handle tensor);
  void read_by_attributes(py::handle tensor);
  void measure(const int64_t* strides);
  std::string dtype_text() const;

  bool dense_ = true;
  int32_t device_type_ = dlpack::kCpu, device_id_ = 0;
  int64_t numel_ = 0;
  py::object owned_;
};

// Whether `object` is a torch.Tensor.
bool is_tensor(py::handle object);

// Whether all are of the types that an op meets most: torch.Tensor and Parameter themselves that
// require no gradient, numbers, strings, None, and tuples of these.
bool are_plain(const py::tuple& values);

// The stream that torch's current operations on this CUDA device go to.
void* current_stream(int device);

// Looks up torch's exchange table; called once, at import.
void find_exchange_api();

}  // namespace pf
