#include <algorithm>
#include <iterator>
#include <type_traits>

#include "runtime/cuda/cublaslt.cuh"

namespace annulus {
namespace {

using Bias = ProductEpilogue::Bias;
using Finish = ProductEpilogue::Finish;
using Form = Matmul::Form;

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::f64:
      return CUDA_R_64F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    case DType::i32:
      break;
  }
  throw InternalError("a product of integers");
}

/// Halves are multiplied as they are, and added in f32.
cublasComputeType_t compute_type(DType operands, FloatProducts float_products) {
  if (operands == DType::f64) return CUBLAS_COMPUTE_64F;
  const bool rounded = operands == DType::f32 && float_products == FloatProducts::tf32;
  return rounded ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

cudaDataType_t scale_type(DType operands) { return operands == DType::f64 ? CUDA_R_64F : CUDA_R_32F; }

cublasLtEpilogue_t epilogue_of(const ProductEpilogue& done) {
  const bool bias = done.bias != Bias::none;
  switch (done.finish) {
    case Finish::none:
      return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    case Finish::gelu:
      return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    case Finish::gelu_and_input:
      return bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    case Finish::gelu_slope:
      return CUBLASLT_EPILOGUE_DGELU;
  }
  throw InternalError("no such epilogue");
}

bool has_gelu_input(const ProductEpilogue& done) {
  return done.finish == Finish::gelu_and_input || done.finish == Finish::gelu_slope;
}

}  // namespace

void check_cublas(cublasStatus_t status, const std::string& what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw DeviceError(what + ": cuBLASLt says " + cublasLtGetStatusString(status));
}

ProductLayout::ProductLayout(DType dtype, std::int64_t rows, std::int64_t columns) {
  check_cublas(cublasLtMatrixLayoutCreate(&handle_, type_of(dtype), static_cast<std::uint64_t>(columns),
                                          static_cast<std::uint64_t>(rows), columns),
               "a matrix layout");
}

ProductAlgorithm description_of(const cublasLtMatmulAlgo_t& algorithm) {
  ProductAlgorithm described;
  static_assert(sizeof(described.words) == sizeof(algorithm.data));
  std::copy(std::begin(algorithm.data), std::end(algorithm.data), described.words.begin());
  const auto ask = [&]<class T>(cublasLtMatmulAlgoConfigAttributes_t attribute, T value) {
    check_cublas(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof(value), nullptr),
                 "an algorithm's description");
    return static_cast<std::int32_t>(value);
  };
  described.id = ask(CUBLASLT_ALGO_CONFIG_ID, std::int32_t());
  described.tile = ask(CUBLASLT_ALGO_CONFIG_TILE_ID, std::uint32_t());
  described.stages = ask(CUBLASLT_ALGO_CONFIG_STAGES_ID, std::uint32_t());
  described.splits = ask(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, std::int32_t());
  described.reduction = ask(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, std::uint32_t());
  return described;
}

LibraryProduct::LibraryProduct(const ProductShape& shape, const ProductEpilogue& done, FloatProducts float_products)
    : shape_(shape),
      done_(done),
      compute_(compute_type(shape.operands, float_products)),
      a_(shape.operands, shape.form == Form::tn ? shape.sizes.k : shape.sizes.m,
         shape.form == Form::tn ? shape.sizes.m : shape.sizes.k),
      b_(shape.operands, shape.form == Form::nt ? shape.sizes.n : shape.sizes.k,
         shape.form == Form::nt ? shape.sizes.k : shape.sizes.n),
      c_(shape.result, shape.sizes.m, shape.sizes.n) {
  check_cublas(cublasLtMatmulDescCreate(&operation_, compute_, scale_type(shape.operands)), shape.str());
  set(CUBLASLT_MATMUL_DESC_TRANSA, shape.form == Form::nt ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, shape.form == Form::tn ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(done));
  // The heuristic looks at no memory, only at how these addresses are aligned.
  void* const aligned = reinterpret_cast<void*>(std::uintptr_t(shape.alignment));
  if (done.bias != Bias::none) {
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(type_of(shape.result)));
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, aligned);
  }
  if (has_gelu_input(done)) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, shape.sizes.n);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aligned);
  }
}

std::vector<cublasLtMatmulHeuristicResult_t> LibraryProduct::suggestions(cublasLtHandle_t library,
                                                                         Determinism determinism,
                                                                         std::int64_t workspace, int most) const {
  cublasLtMatmulPreference_t made = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&made), shape_.str());
  const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>, decltype(&cublasLtMatmulPreferenceDestroy)>
      preference(made, &cublasLtMatmulPreferenceDestroy);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check_cublas(cublasLtMatmulPreferenceSetAttribute(made, attribute, &value, sizeof(value)), shape_.str());
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace));
  if (determinism == Determinism::bitwise)
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE));
  for (auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                         CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    prefer(attribute, shape_.alignment);
  }
  std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<std::size_t>(most));
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      library, operation_, b_.handle(), a_.handle(), c_.handle(), c_.handle(), made, most, found.data(), &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return {};
  check_cublas(status, shape_.str());
  found.resize(static_cast<std::size_t>(count));
  std::erase_if(found, [](const auto& one) { return one.state != CUBLAS_STATUS_SUCCESS; });
  return found;
}

void LibraryProduct::take(const cublasLtMatmulHeuristicResult_t& suggestion) {
  algorithm_ = suggestion.algo;
  workspace_bytes_ = static_cast<std::int64_t>(suggestion.workspaceSize);
}

bool LibraryProduct::take(cublasLtHandle_t library, const ProductAlgorithm& algorithm) {
  cublasLtMatmulAlgo_t made{};
  std::copy(algorithm.words.begin(), algorithm.words.end(), std::begin(made.data));
  cublasLtMatmulHeuristicResult_t checked{};
  if (cublasLtMatmulAlgoCheck(library, operation_, b_.handle(), a_.handle(), c_.handle(), c_.handle(), &made,
                              &checked) != CUBLAS_STATUS_SUCCESS)
    return false;
  algorithm_ = made;
  workspace_bytes_ = static_cast<std::int64_t>(checked.workspaceSize);
  return true;
}

cublasStatus_t LibraryProduct::try_to_run(cublasLtHandle_t library, const ProductOperands& operands,
                                          cudaStream_t stream) {
  if (done_.bias != Bias::none) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
  if (has_gelu_input(done_)) set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, operands.gelu_input);
  const auto multiply = [&]<class T>(T) {
    const T alpha = 1, beta = operands.addend ? T(1) : T(0);
    const void* addend = operands.addend ? operands.addend : operands.result;
    return cublasLtMatmul(library, operation_, &alpha, operands.b, b_.handle(), operands.a, a_.handle(), &beta, addend,
                          c_.handle(), operands.result, c_.handle(), &algorithm_, operands.workspace,
                          static_cast<std::size_t>(workspace_bytes_), stream);
  };
  return shape_.operands == DType::f64 ? multiply(double()) : multiply(float());
}

}  // namespace annulus
