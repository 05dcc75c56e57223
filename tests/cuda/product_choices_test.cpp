// How a product's algorithm is chosen, kept and refused, with a stand-in for the library; and what our kernels do of an
// epilogue behind a library that does less of it.
#include "runtime/cuda/product_choices.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "runtime/cuda/launch.h"
#include "tests/cpu/support.h"
#include "tests/cuda/epilogues.h"

namespace annulus::testing {
namespace {

using Bias = ProductEpilogue::Bias;
using Addend = ProductEpilogue::Addend;
using Finish = ProductEpilogue::Finish;
using Output = ProductEpilogue::Output;
using Form = Matmul::Form;

ProductShape shape_with(const ProductEpilogue& epilogue, DType operands, std::int64_t n = 32) {
  return shape_of(Matmul(Form::nn, epilogue), {16, 64}, {64, n}, operands);
}

TEST(LibraryEpilogues, EveryRowEndsWithTheBareProduct) {
  for (const ProductEpilogue& epilogue : all_epilogues()) {
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
      const auto all = library_epilogues(shape_with(epilogue, dtype));
      ASSERT_FALSE(all.empty());
      EXPECT_EQ(all.back().bias, Bias::none);
      EXPECT_EQ(all.back().finish, Finish::none);
      for (const ProductEpilogue& done : all) {
        EXPECT_EQ(done.addend, epilogue.addend);
        EXPECT_EQ(done.output, epilogue.output);
        EXPECT_TRUE(done.finish == Finish::none || done == epilogue) << "a finish without the bias before it";
      }
      EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
    }
  }
}

TEST(LibraryEpilogues, GeluIsTheLibrarysOnlyOfHalvesByTanhInRowsOfEight) {
  const auto finishes = [](ProductEpilogue epilogue, DType dtype, std::int64_t n) {
    return library_epilogues(shape_with(epilogue, dtype, n)).front().finish == epilogue.finish;
  };
  for (const Finish finish : {Finish::gelu, Finish::gelu_and_input, Finish::gelu_slope}) {
    const ProductEpilogue tanh{.finish = finish}, erf{.finish = finish, .activation = Activation::gelu_erf},
        biased{.bias = Bias::of_columns, .finish = finish}, wide{.output = Output::wide, .finish = finish};
    EXPECT_TRUE(finishes(tanh, DType::bf16, 32));
    EXPECT_TRUE(finishes(tanh, DType::f16, 32));
    EXPECT_FALSE(finishes(tanh, DType::f32, 32));
    EXPECT_FALSE(finishes(tanh, DType::f64, 32));
    EXPECT_FALSE(finishes(erf, DType::bf16, 32));
    EXPECT_FALSE(finishes(wide, DType::bf16, 32));
    EXPECT_EQ(finishes(tanh, DType::bf16, 36), finish == Finish::gelu);
    EXPECT_EQ(finishes(biased, DType::bf16, 32), finish != Finish::gelu_slope);
  }
}

template <class T>
class RestOfEpilogue : public FloatKernelTest<T> {
 protected:
  /// The op as a library that does `done` and our kernels behind it give it.
  std::vector<Operand> in_parts(const Matmul& op, const ProductEpilogue& done, std::vector<Operand> inputs,
                                const std::vector<Operand>& like) {
    std::vector<Operand> outputs;
    for (const Operand& output : like) outputs.emplace_back(output.type().dtype, output.type().shape);
    std::vector<Tensor> from, to;
    for (Operand& input : inputs) from.push_back(input.tensor());
    for (Operand& output : outputs) to.push_back(output.tensor());
    if (op.addend() == Addend::in_place) to[0] = from[op.addend_input()];

    std::vector<Operand> library_inputs{inputs[0], inputs[1]};
    if (done.bias != Bias::none) library_inputs.push_back(inputs[2]);
    if (done.addend != Addend::none) library_inputs.push_back(inputs[op.addend_input()]);
    if (done.finish == Finish::gelu_slope) library_inputs.push_back(inputs[op.slope_input()]);
    std::vector<Operand> made = this->run(Matmul(op.form(), done), library_inputs);
    const auto write = [](const Operand& source, const Tensor& target) {
      std::copy(source.bytes().begin(), source.bytes().end(), target.data);
    };
    write(made[0], to[library_output(op, done)]);
    if (done.finish == Finish::gelu_and_input) write(made[1], to[1]);
    FiberScheduler scheduler(std::random_device{}());
    run_rest_of_epilogue(
        op, done, {from, to, nullptr, 0, &this->counters_},
        [&](const auto& kind, const KernelArguments& rest) { launch(kind, rest, FiberLauncher{scheduler}); });
    if (op.addend() == Addend::in_place) outputs[0].bytes() = inputs[op.addend_input()].bytes();
    return outputs;
  }

  void check(const Matmul& op) {
    const std::int64_t m = this->size(20), n = this->size(20), k = this->size(20);
    const DType dtype = this->kType;
    std::vector<Operand> inputs{this->random(dtype, op.form() == Form::tn ? Shape{k, m} : Shape{m, k}),
                                this->random(dtype, op.form() == Form::nt ? Shape{n, k} : Shape{k, n})};
    if (op.bias() != Bias::none) inputs.push_back(this->random(dtype, {n}));
    if (op.addend() != Addend::none) inputs.push_back(this->random(dtype, {m, n}));
    if (op.finish() == Finish::gelu_slope) inputs.push_back(this->random(dtype, {m, n}));
    std::vector<Operand> whole = this->run(op, inputs);
    const ProductShape shape = shape_of(op, inputs[0].type().shape, inputs[1].type().shape, dtype);
    std::vector<ProductEpilogue> epilogues = library_epilogues(shape);
    epilogues.push_back(op.epilogue());  // which the library does of halves
    for (const ProductEpilogue& done : epilogues) {
      std::vector<Operand> parts = in_parts(op, done, inputs, whole);
      for (std::size_t i = 0; i < whole.size(); ++i) {
        expect_close(parts[i].numbers(), whole[i].numbers(), this->tolerance(),
                     op.attributes() + " behind " + Matmul(op.form(), done).attributes(), usual_sum(k));
      }
    }
  }
};
TYPED_TEST_SUITE(RestOfEpilogue, FloatTypes);

TYPED_TEST(RestOfEpilogue, EveryRowInPartsEqualsTheWhole) {
  for (const ProductEpilogue& epilogue : all_epilogues())
    for (const Form form : {Form::nn, Form::nt, Form::tn}) this->check(Matmul(form, epilogue));
}

/// A library with algorithms 0, 1, 2, ... of given seconds; those below 0 are refused when they are to run.
class FakeLibrary final : public ProductTrials {
 public:
  std::string machine() const override { return "a GPU, a library 1.0"; }
  std::vector<ProductAlgorithm> suggestions(const ProductShape&, const ProductEpilogue& done, int most) override {
    if (refused_.contains(done.finish)) return {};
    std::vector<ProductAlgorithm> all;
    for (std::int32_t id = 0; id < std::min(most, static_cast<int>(seconds_.size())); ++id)
      all.push_back({.id = id, .splits = id < split_ ? 4 : 1});
    return all;
  }
  std::optional<double> seconds(const ProductShape&, const ProductEpilogue&, const ProductAlgorithm& of) override {
    ++measured_;
    const double seconds = seconds_[static_cast<std::size_t>(of.id)];
    return seconds < 0 ? std::nullopt : std::optional(seconds);
  }

  std::vector<double> seconds_{3, 1, 2, -1, 0.5};
  std::set<Finish> refused_;
  int split_ = 0;  ///< so many of the first split their sums
  int measured_ = 0;
};

const ProductShape kBiasedGelu = shape_with({.bias = Bias::of_columns, .finish = Finish::gelu_and_input}, DType::bf16);
const ProductShape kPlain = shape_with({}, DType::f32);

TEST(ProductChoices, TheFastestOfWhatRuns) {
  FakeLibrary library;
  const ProductTable table = choose_products(library, {kBiasedGelu, kPlain}, Determinism::any);
  ASSERT_EQ(table.choices.size(), 2U);
  EXPECT_EQ(table.choices.at(kPlain.str()), (ProductChoice{0, ProductAlgorithm{.id = 4}, 0.5}));
  EXPECT_EQ(library.measured_, 10);
}

TEST(ProductChoices, LessOfTheEpilogueWhereTheLibraryDoesNoMore) {
  FakeLibrary library;
  library.refused_ = {Finish::gelu_and_input};
  EXPECT_EQ(choose_products(library, {kBiasedGelu}, Determinism::any).choices.at(kBiasedGelu.str()).epilogue, 1U);
}

TEST(ProductChoices, WhatTheLibrarySuggestsWhereNothingIsOfUse) {
  FakeLibrary library;
  library.seconds_ = {-1, -1};
  const ProductTable table = choose_products(library, {kPlain}, Determinism::any);
  EXPECT_EQ(table.choices.at(kPlain.str()), ProductChoice{});
  library.seconds_.clear();
  EXPECT_EQ(choose_products(library, {kPlain}, Determinism::bitwise), table);
  EXPECT_EQ(parse_product_table(to_json(table), "there"), table);
  EXPECT_NE(describe(table).find("as the library suggests"), std::string::npos);
  EXPECT_NO_THROW(require_fits(table, library.machine(), {kPlain}, Determinism::bitwise, "there"));
}

TEST(ProductChoices, WhatATableLacksIsChosenAndTheRestStays) {
  FakeLibrary library;
  ProductTable known = choose_products(library, {kPlain}, Determinism::any);
  known.choices[kPlain.str()].algorithm->id = 77;
  const int measured = library.measured_;
  const ProductTable table = choose_products(library, {kBiasedGelu, kPlain}, Determinism::any, known);
  EXPECT_EQ(table.choices.at(kPlain.str()), known.choices.at(kPlain.str()));
  EXPECT_TRUE(table.choices.at(kBiasedGelu.str()).algorithm);
  EXPECT_EQ(library.measured_, measured + 5);
}

TEST(ProductChoices, SameBitsTakeTheFirstThatDoesNotSplitUnmeasured) {
  FakeLibrary library;
  library.split_ = 2;
  EXPECT_EQ(choose_products(library, {kPlain}, Determinism::bitwise).choices.at(kPlain.str()),
            (ProductChoice{0, ProductAlgorithm{.id = 2}, 0}));
  EXPECT_EQ(library.measured_, 0);
}

template <class Action>
std::string refusal(const Action& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return {};
}

TEST(ProductChoices, ATableIsReadAsItWasWritten) {
  FakeLibrary library;
  ProductTable table = choose_products(library, {kBiasedGelu, kPlain}, Determinism::any);
  table.choices[kPlain.str()].algorithm = ProductAlgorithm{{1, 2, 3, 4, 5, 6, 7, ~std::uint64_t{0}}, 8, 9, 10, 11, 12};
  EXPECT_EQ(parse_product_table(to_json(table), "there"), table);
  EXPECT_NE(describe(table).find(kPlain.str()), std::string::npos);
  for (const std::string text :
       {"", "{", "[]", "{\"machine\": 1}", "{\"machine\": \"a\", \"products\": {\"x\": {}}}"}) {
    const std::string why = refusal([&] { parse_product_table(text, "there"); });
    EXPECT_TRUE(why.starts_with("there: no table of products' algorithms")) << why;
  }
}

TEST(ProductChoices, WhatDoesNotFitIsRefused) {
  FakeLibrary library;
  const std::string here = library.machine();
  ProductTable table = choose_products(library, {kPlain}, Determinism::any);
  const auto why = [&](const std::string& machine, const std::vector<ProductShape>& shapes, Determinism determinism) {
    return refusal([&] { require_fits(table, machine, shapes, determinism, "products.json"); });
  };
  EXPECT_EQ(why(here, {kPlain}, Determinism::bitwise), "");
  EXPECT_NE(why("a GPU, a library 1.1", {kPlain}, Determinism::any).find("were chosen on 'a GPU, a library 1.0'"),
            std::string::npos);
  EXPECT_NE(
      why(here, {kPlain, kBiasedGelu}, Determinism::any).find("no algorithm was chosen for the product nn + bias"),
      std::string::npos);
  table.choices[kPlain.str()].algorithm->splits = 2;
  EXPECT_EQ(why(here, {kPlain}, Determinism::any), "");
  EXPECT_NE(why(here, {kPlain}, Determinism::bitwise).find("splits its sum"), std::string::npos);
  table.choices[kPlain.str()].epilogue = 1;
  EXPECT_NE(why(here, {kPlain}, Determinism::any).find("has 1 forms, and number 1 was chosen"), std::string::npos);
}

TEST(ProductChoices, AProgramsProductsEachOnce) {
  Program program(MeshAxes{});
  const ValueId x = program.leaf("x", Role::input, DType::f32, {4, 8}),
                w = program.leaf("w", Role::parameter, DType::f32, {8, 8});
  ValueId y = program.emit_one(std::make_shared<Matmul>(Form::nn), {x, w});
  y = program.emit_one(std::make_shared<Gelu>(Activation::gelu_tanh), {y});
  y = program.emit_one(std::make_shared<Matmul>(Form::nn), {y, w});
  program.emit_one(std::make_shared<Matmul>(Form::nt), {y, w});
  const std::vector<ProductShape> shapes = products_of(program);
  ASSERT_EQ(shapes.size(), 2U);
  EXPECT_EQ(shapes[0].str(), "nn of 4 x 8 x 8 (m x n x k), f32 to f32, aligned to 16");
  EXPECT_EQ(shapes[1].form, Form::nt);
}

}  // namespace
}  // namespace annulus::testing
