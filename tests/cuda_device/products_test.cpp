// cuBLASLt on a GPU: products of every type with every epilogue, by its suggestions and by measured algorithms.
#include <gtest/gtest.h>

#include <memory>

#include "tests/cpu/support.h"
#include "tests/cuda/epilogues.h"
#include "tests/cuda_device/gpu.h"

namespace annulus::testing {
namespace {

class ProductsOnGpu : public KernelTest {
 protected:
  static constexpr std::int64_t kMemory = std::int64_t{64} << 20;

  void SetUp() override {
    if (const std::string why = absence(); !why.empty()) GTEST_SKIP() << "no device: " << why;
    gpu_ = std::make_unique<CudaDevice>(CudaOptions{});
    memory_ = gpu_->allocate(kMemory);
  }

  struct Product {
    Matmul op;
    std::vector<Operand> inputs;
    ProductShape shape() const {
      return shape_of(op, inputs[0].type().shape, inputs[1].type().shape, inputs[0].type().dtype);
    }
  };

  Product draw(const ProductEpilogue& epilogue, DType dtype, std::int64_t columns) {
    const Matmul op(epilogue.addend == ProductEpilogue::Addend::in_place ? Matmul::Form::tn : Matmul::Form::nn,
                    epilogue);
    const std::int64_t m = 48, k = 96;
    const DType result = epilogue.output == ProductEpilogue::Output::wide ? wide(dtype) : dtype;
    Product product{
        op, {random(dtype, op.form() == Matmul::Form::tn ? Shape{k, m} : Shape{m, k}), random(dtype, {k, columns})}};
    if (op.bias() != ProductEpilogue::Bias::none) product.inputs.push_back(random(result, {columns}));
    if (op.addend() != ProductEpilogue::Addend::none) product.inputs.push_back(random(result, {m, columns}));
    if (op.finish() == ProductEpilogue::Finish::gelu_slope) product.inputs.push_back(random(result, {m, columns}));
    return product;
  }

  /// Halves as f32, which the CPU multiplies.
  static std::vector<Operand> widened(std::vector<Operand> inputs) {
    for (Operand& input : inputs) input = Operand(wide(input.type().dtype), input.type().shape, input.numbers());
    return inputs;
  }

  std::vector<Operand> on_gpu(const Product& product) {
    std::int64_t used = 0;
    const auto take = [&](const ValueType& type) {
      const Tensor tensor{memory_ + used, type.dtype, type.shape};
      used += (tensor.bytes() + 255) / 256 * 256;
      return tensor;
    };
    std::vector<ValueType> types;
    std::vector<Tensor> from, to;
    for (const Operand& input : product.inputs) {
      types.push_back(input.type());
      from.push_back(take(types.back()));
      gpu_->copy_to_device(from.back().data, input.bytes().data(), from.back().bytes());
    }
    const std::vector<ValueType> results = product.op.infer(MeshAxes{}, types);
    for (const ValueType& type : results) to.push_back(take(type));
    if (!product.op.aliases().empty()) to[0] = from[product.op.addend_input()];
    const std::int64_t bytes = gpu_->workspace_bytes(product.op, types, results);
    gpu_->run(product.op, {from, to, memory_ + used, bytes, &counters_});
    std::vector<Operand> outputs;
    for (const Tensor& tensor : to) {
      outputs.emplace_back(tensor.dtype, tensor.shape);
      gpu_->copy_from_device(outputs.back().bytes().data(), tensor.data, tensor.bytes());
    }
    return outputs;
  }

  void expect_like_the_cpu(const Product& product) {
    std::vector<Operand> actual = on_gpu(product), expected = run(product.op, widened(product.inputs));
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const DType dtype = actual[i].type().dtype;
      const double unit = dtype == DType::bf16 ? 8e-3 : dtype == DType::f16 ? 1e-3 : dtype == DType::f32 ? 1e-5 : 1e-12;
      expect_close(actual[i].numbers(), expected[i].numbers(), 2 * unit, product.shape().str(), usual_sum(96));
    }
  }

  std::unique_ptr<CudaDevice> gpu_;
  std::byte* memory_ = nullptr;
};

TEST_F(ProductsOnGpu, EveryEpilogueOfEveryType) {
  for (const ProductEpilogue& epilogue : all_epilogues())
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
      for (const std::int64_t columns : {64, 60, 7}) expect_like_the_cpu(draw(epilogue, dtype, columns));
}

TEST_F(ProductsOnGpu, MeasuredAlgorithmsAreMadeAgainFromTheirTable) {
  std::vector<Product> products;
  std::vector<ProductShape> shapes;
  for (const ProductEpilogue& epilogue : all_epilogues()) {
    products.push_back(draw(epilogue, DType::bf16, 64));
    shapes.push_back(products.back().shape());
  }
  const ProductTable table = gpu_->choose_products(shapes);
  gpu_->use_products(parse_product_table(to_json(table), "a table"), shapes, "a table");
  for (const Product& product : products) {
    expect_like_the_cpu(product);
    EXPECT_EQ(on_gpu(product)[0].bytes(), on_gpu(product)[0].bytes()) << product.shape().str();
  }
  ProductTable stale = table;
  stale.machine += "1";
  EXPECT_THROW(gpu_->use_products(stale, shapes, "a table"), ConfigError);
}

}  // namespace
}  // namespace annulus::testing
