// SPDX-License-Identifier: Apache-2.0
#include "tensor_view.hpp"

namespace pf {
namespace {

const dlpack::ExchangeApi* exchange_api = nullptr;
PyObject *tensor_type = nullptr, *parameter_type = nullptr;

bool is_plain_tensor(PyObject* object) {
  const auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  return type == tensor_type || type == parameter_type;
}

bool is_plain_number(PyObject* object) {
  return PyFloat_CheckExact(object) || PyLong_CheckExact(object) || PyBool_Check(object) ||
         PyUnicode_CheckExact(object) || object == Py_None;
}

bool wants_gradient(PyObject* tensor) {
  static PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
  const auto answer = py::reinterpret_steal<py::object>(PyObject_GetAttr(tensor, requires_grad));
  if (!answer) throw py::error_already_set();
  return answer.ptr() != Py_False;
}

}  // namespace

void bad_value(const char* name, const std::string& expected, const std::string& got) {
  throw py::value_error(std::string(name) + ": expected " + expected + ", got " + got);
}
void bad_type(const char* name, const std::string& expected, const std::string& got) {
  throw py::type_error(std::string(name) + ": expected " + expected + ", got " + got);
}

bool is_tensor(py::handle object) {
  const int answer = PyObject_IsInstance(object.ptr(), tensor_type);
  if (answer < 0) throw py::error_already_set();
  return answer != 0;
}

bool are_plain(const py::tuple& values) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(values.ptr()); ++i) {
    PyObject* const value = PyTuple_GET_ITEM(values.ptr(), i);
    if (is_plain_number(value)) continue;
    if (is_plain_tensor(value) ? wants_gradient(value) : !PyTuple_Check(value)) return false;
    if (!PyTuple_Check(value)) continue;
    for (Py_ssize_t j = 0; j < PyTuple_GET_SIZE(value); ++j) {  // where gradients are no matter
      PyObject* const part = PyTuple_GET_ITEM(value, j);
      if (!is_plain_number(part) && !is_plain_tensor(part)) return false;
    }
  }
  return true;
}

void find_exchange_api() {
  const py::module_ torch = py::module_::import("torch");
  const py::object type = torch.attr("Tensor");
  tensor_type = py::object(type).release().ptr();  // torch is never unloaded
  parameter_type = py::object(torch.attr("nn").attr("Parameter")).release().ptr();
  for (const char* name : {"__dlpack_c_exchange_api__", "__c_dlpack_exchange_api__"}) {
    if (!py::hasattr(type, name)) continue;
    const py::object capsule = type.attr(name);
    if (!PyCapsule_CheckExact(capsule.ptr())) continue;
    const char* capsule_name = PyCapsule_GetName(capsule.ptr());
    auto* api =
        static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), capsule_name));
    if (api == nullptr) {
      PyErr_Clear();
    } else if (api->header.major == 1 && api->tensor_from_py_object != nullptr) {
      exchange_api = api;
      return;
    }
  }
}

void* current_stream(int device) {
  void* stream = nullptr;
  if (exchange_api != nullptr && exchange_api->current_work_stream != nullptr) {
    if (exchange_api->current_work_stream(dlpack::kCuda, device, &stream) == 0) return stream;
    throw py::error_already_set();
  }
  const py::object current = py::module_::import("torch").attr("cuda").attr("current_stream");
  return reinterpret_cast<void*>(current(device).attr("cuda_stream").cast<uintptr_t>());
}

TensorView::TensorView(py::handle tensor, const char* argument, bool densify) : name(argument) {
  if (!is_tensor(tensor)) bad_type(name, "a torch.Tensor", Py_TYPE(tensor.ptr())->tp_name);
  read(tensor);
  if (device_type_ != dlpack::kCpu && device_type_ != dlpack::kCuda) {
    bad_value(name, "a tensor on the CPU or a CUDA device",
              py::str(tensor.attr("device")).cast<std::string>());
  }
  if (!dense_) {
    if (!densify) bad_value(name, "a contiguous tensor", "one with strided memory");
    owned_ = tensor.attr("contiguous")();
    read(owned_);
  }
  if (data == nullptr && numel() > 0) {
    bad_type(name, "a tensor with memory", "one without storage (fake, meta or transformed)");
  }
  // A lazy negation or conjugation is invisible in memory.
  static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
  const auto negated =
      py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(tensor.ptr(), is_neg));
  if (!negated) throw py::error_already_set();
  if (negated.ptr() == Py_True) {
    bad_value(name, "a tensor without a pending negation", "one; pass x.resolve_neg()");
  }
}

void TensorView::read(py::handle tensor) {
  if (!read_by_exchange(tensor)) read_by_attributes(tensor);
}

// The number of elements, and whether they lie densely; null strides are those of dense memory.
void TensorView::measure(const int64_t* strides) {
  numel_ = 1;
  bool dense = true;
  for (int i = ndim - 1; i >= 0; --i) {
    if (strides != nullptr && shape[i] != 1 && strides[i] != numel_) dense = false;
    numel_ *= shape[i];
  }
  dense_ = dense || numel_ == 0;
}

bool TensorView::read_by_exchange(py::handle tensor) {
  if (exchange_api == nullptr) return false;
  dlpack::Tensor t;
  if (exchange_api->tensor_from_py_object(tensor.ptr(), &t) != 0) {
    const py::error_already_set error;
    const std::string device = py::str(tensor.attr("device")).cast<std::string>();
    if (device.rfind("cpu", 0) != 0 && device.rfind("cuda", 0) != 0) {
      bad_value(name, "a tensor on the CPU or a CUDA device", device);
    }
    const std::string layout = py::str(tensor.attr("layout")).cast<std::string>();
    if (layout != "torch.strided") bad_value(name, "a dense tensor", "layout " + layout);
    const std::string cause = error.what();
    bad_type(name, "a dense tensor", cause.substr(0, cause.find('\n')));
  }
  if (t.ndim > kMaxDims) bad_value(name, "at most 64 dimensions", std::to_string(t.ndim));
  data = t.data == nullptr ? nullptr : static_cast<char*>(t.data) + t.byte_offset;
  ndim = t.ndim;
  code = t.dtype.code;
  bits = t.dtype.bits;
  device_type_ = t.device.type;
  device_id_ = t.device.id;
  for (int i = 0; i < ndim; ++i) shape[i] = t.shape[i];
  measure(t.strides);
  return true;
}

void TensorView::read_by_attributes(py::handle tensor) {
  const std::string dtype = py::str(tensor.attr("dtype")).cast<std::string>();
  const py::object device = tensor.attr("device");
  const std::string kind = device.attr("type").cast<std::string>();
  device_type_ = kind == "cpu" ? dlpack::kCpu : kind == "cuda" ? dlpack::kCuda : -1;
  if (device_type_ == dlpack::kCuda) device_id_ = device.attr("index").cast<int32_t>();
  const py::tuple sizes = tensor.attr("shape");
  ndim = static_cast<int>(sizes.size());
  if (ndim > kMaxDims) bad_value(name, "at most 64 dimensions", std::to_string(ndim));
  const py::tuple steps = tensor.attr("stride")();
  int64_t strides[kMaxDims];
  for (int i = 0; i < ndim; ++i) {
    shape[i] = sizes[static_cast<size_t>(i)].cast<int64_t>();
    strides[i] = steps[static_cast<size_t>(i)].cast<int64_t>();
  }
  measure(strides);
  code = dtype == "torch.float32" || dtype == "torch.float64" ? dlpack::kFloat
         : dtype == "torch.int64"                             ? dlpack::kInt
                                                              : 255;
  if (dtype == "torch.bfloat16") code = dlpack::kBfloat;
  if (dtype == "torch.float16") code = dlpack::kFloat;
  if (dtype == "torch.uint8") code = dlpack::kUint;
  bits = dtype == "torch.float32"                                ? 32
         : dtype == "torch.bfloat16" || dtype == "torch.float16" ? 16
         : dtype == "torch.uint8"                                ? 8
                                                                 : 64;
  data = device_type_ == -1 ? nullptr
                            : reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<uintptr_t>());
}

int64_t TensorView::n_chains() const {
  if (ndim == 0) bad_value(name, "shape (n_chains, ...)", "a 0-d tensor");
  return shape[0];
}
int64_t TensorView::dim() const {
  int64_t n = 1;
  for (int i = 1; i < ndim; ++i) n *= shape[i];
  return n;
}
std::string TensorView::shape_text() const {
  std::string text = "(";
  for (int i = 0; i < ndim; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (ndim == 1 ? ",)" : ")");
}
std::string TensorView::dtype_text() const {
  static const char* const kinds[] = {"int",    "uint",    "float", "opaque",
                                      "bfloat", "complex", "bool"};
  if (code > 6) return "another type";
  return std::string(kinds[code]) + std::to_string(bits);
}
Dtype TensorView::dtype() const {
  if (code == dlpack::kFloat && bits == 32) return Dtype::kFloat32;
  if (code == dlpack::kFloat && bits == 64) return Dtype::kFloat64;
  bad_type(name, "float32 or float64", dtype_text());
}
Dtype TensorView::storage_dtype() const {
  if (code == dlpack::kBfloat && bits == 16) return Dtype::kBFloat16;
  if (code == dlpack::kFloat && bits == 16) return Dtype::kFloat16;
  if (code == dlpack::kFloat && (bits == 32 || bits == 64)) return dtype();
  bad_type(name, "float32, float64, bfloat16 or float16", dtype_text());
}
void TensorView::must_be(Dtype dtype) const {
  static const char* const expected[] = {"float32", "float64", "bfloat16", "float16"};
  if (storage_dtype() != dtype) {
    bad_type(name, std::string(expected[static_cast<int>(dtype)]) + ", the type of x",
             dtype_text());
  }
}
void TensorView::must_be_with(const TensorView& other) const {
  if (device() == other.device()) return;
  auto where = [](int device) {
    return device < 0 ? std::string("cpu") : "cuda:" + std::to_string(device);
  };
  bad_value(name,
            std::string("a tensor on the device of ") + other.name + ", " + where(other.device()),
            where(device()));
}
void TensorView::must_be_int64() const {
  if (code != dlpack::kInt || bits != 64) bad_type(name, "int64", dtype_text());
}
void TensorView::must_have_shape_of(const TensorView& other) const {
  bool same = ndim == other.ndim;
  for (int i = 0; same && i < ndim; ++i) same = shape[i] == other.shape[i];
  if (!same) {
    bad_value(name, "shape " + other.shape_text() + " as " + other.name, shape_text());
  }
}
void TensorView::must_have_numel(int64_t n, const char* meaning) const {
  if (numel() != n) {
    bad_value(name, std::string(meaning) + ", " + std::to_string(n) + " elements",
              "shape " + shape_text());
  }
}
void TensorView::must_not_overlap(const TensorView& other, bool may_be_same) const {
  if (!overlaps(other)) return;
  if (may_be_same && data == other.data && bytes() == other.bytes()) return;
  bad_value(name, std::string("memory apart from ") + other.name, "overlapping tensors");
}
bool TensorView::overlaps(const TensorView& other) const {
  const char *a = static_cast<const char*>(data), *b = static_cast<const char*>(other.data);
  return a < b + other.bytes() && b < a + bytes();
}

}  // namespace pf
