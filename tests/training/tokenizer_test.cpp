#include "runtime/training/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "runtime/training/utf8.h"
#include "tests/training/support.h"

namespace annulus {
namespace {

using testing::contents;
using testing::expect_error;
using testing::Random;
using testing::TemporaryFolder;

TEST(ByteTokenizer, RoundTripsAnyBytes) {
  const auto tokenizer = make_byte_tokenizer();
  EXPECT_EQ(tokenizer->vocabulary_size(), 257);
  EXPECT_EQ(tokenizer->end_of_text(), 256);
  std::string all;
  for (int byte = 255; byte >= 0; --byte) all += static_cast<char>(byte);
  std::vector<std::int32_t> ids = tokenizer->encode(all);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(ids[static_cast<std::size_t>(i)], 255 - i);
  ids.push_back(256);
  EXPECT_EQ(tokenizer->decode(ids), all);
  for (const std::int32_t id : {-1, 257}) {
    expect_error([&] { tokenizer->decode(std::vector{id}); },
                 {"token id " + std::to_string(id), "0..256", "tokenizer that"});
  }
}

/// Real text that every C++ compiler ships.
class SentencePiece : public ::testing::Test {
 protected:
  static constexpr std::int64_t kVocabulary = 600;

  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    train_sentencepiece({.globs = {kCorpus}, .vocabulary_size = kVocabulary}, *folder_ / "cpp.model", Existing::refuse);
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static constexpr const char* kCorpus = "/usr/include/c++/*/bits/stl_[aefm]*.h";
  static inline std::unique_ptr<TemporaryFolder> folder_;
};

TEST_F(SentencePiece, LearnsThePiecesOfItsText) {
  const auto tokenizer = load_sentencepiece(*folder_ / "cpp.model");
  EXPECT_EQ(tokenizer->vocabulary_size(), kVocabulary);
  EXPECT_EQ(tokenizer->end_of_text(), 1);
  const std::string text = "      template<typename _Tp>\n\tconst_iterator begin() const;\n";
  const auto ids = tokenizer->encode(text);
  EXPECT_EQ(tokenizer->decode(ids), text);
  EXPECT_LT(ids.size(), text.size() / 2) << "two bytes a token at least";
  EXPECT_EQ(tokenizer->encode("template").size(), 1u);
}

TEST_F(SentencePiece, RoundTripsAnyUtf8) {
  const auto tokenizer = load_sentencepiece(*folder_ / "cpp.model");
  std::vector<std::string> texts = {"",
                                    " ",
                                    "\n",
                                    "  two  spaces \n\n",
                                    "\ttab",
                                    "na\u00efve \u4f60\u597d \U0001F600",
                                    "<|endoftext|></s><unk><0x41>",
                                    "\r\n",
                                    "12345 x1y2"};
  Random random;
  for (int round = 0; round < 100; ++round) {
    std::string bytes, text;
    for (std::int64_t i = random.below(80); i > 0; --i) bytes += static_cast<char>(random.below(256));
    append_valid_utf8(bytes, text);
    texts.push_back(text);
  }
  for (const std::string& text : texts) {
    std::vector<std::int32_t> ids = tokenizer->encode(text);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), tokenizer->end_of_text()), 0) << text;
    for (const std::int32_t id : ids) EXPECT_TRUE(id >= 0 && id < kVocabulary);
    ids.push_back(tokenizer->end_of_text());
    EXPECT_EQ(tokenizer->decode(ids), text);
  }
  expect_error([&] { tokenizer->decode(std::vector<std::int32_t>{kVocabulary}); },
               {"token id 600", "vocabulary of 600"});
}

TEST_F(SentencePiece, TrainsTheSameModelAgain) {
  train_sentencepiece({.globs = {kCorpus}, .vocabulary_size = kVocabulary}, *folder_ / "again.model", Existing::refuse);
  EXPECT_EQ(contents(*folder_ / "again.model"), contents(*folder_ / "cpp.model"));
  EXPECT_EQ(load_sentencepiece(*folder_ / "again.model")->fingerprint(),
            load_sentencepiece(*folder_ / "cpp.model")->fingerprint());
}

TEST_F(SentencePiece, SamplesALargeCorpusByItsSeed) {
  SentencePieceTraining training{.globs = {kCorpus}, .vocabulary_size = 400, .seed = 1, .largest_corpus_bytes = 40'000};
  train_sentencepiece(training, *folder_ / "s1.model", Existing::refuse);
  train_sentencepiece(training, *folder_ / "s1.model", Existing::replace);
  const std::string first = contents(*folder_ / "s1.model");
  training.seed = 2;
  train_sentencepiece(training, *folder_ / "s2.model", Existing::refuse);
  EXPECT_NE(contents(*folder_ / "s2.model"), first);
  training.seed = 1;
  train_sentencepiece(training, *folder_ / "s2.model", Existing::replace);
  EXPECT_EQ(contents(*folder_ / "s2.model"), first);
}

TEST_F(SentencePiece, TakesLinesOfAnyLength) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "\u20ac" + std::to_string(i % 97) + "abc ";
  folder_->write("long.txt", text);
  train_sentencepiece({.globs = {*folder_ / "long.txt"}, .vocabulary_size = 276}, *folder_ / "long.model",
                      Existing::refuse);
  const auto tokenizer = load_sentencepiece(*folder_ / "long.model");
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_EQ(tokenizer->encode("abc").size(), 1u);
}

TEST_F(SentencePiece, RefusesWhatCannotBeTrained) {
  const auto train = [&](const std::string& glob, std::int64_t vocabulary_size) {
    train_sentencepiece({.globs = {glob}, .vocabulary_size = vocabulary_size}, *folder_ / "bad.model",
                        Existing::refuse);
  };
  folder_->write("tiny.txt", "only a few words\n");
  folder_->write("blank.txt", "\n\n");
  expect_error([&] { train(kCorpus, 200); }, {"vocabulary_size=200", "256 bytes", "use 260"});
  expect_error([&] { train(kCorpus, 2'000'000); }, {"vocabulary_size=2000000", "to 1000000"});
  expect_error([&] { train(kCorpus, 265); }, {"vocabulary_size=265", "does not fit", "another size"});
  expect_error([&] { train(*folder_ / "tiny.txt", 5000); }, {"vocabulary_size=5000", "tiny.txt", "more text"});
  expect_error([&] { train(*folder_ / "blank.txt", 300); }, {"blank.txt", "no text"});
  expect_error([&] { train(*folder_ / "none*", 300); }, {"none*", "matches no file"});
  EXPECT_FALSE(std::filesystem::exists(*folder_ / "bad.model"));
  expect_error(
      [&] {
        train_sentencepiece({.globs = {kCorpus}, .vocabulary_size = 300}, *folder_ / "cpp.model", Existing::refuse);
      },
      {"cpp.model", "exists already"});
}

TEST_F(SentencePiece, RefusesForeignModels) {
  expect_error([&] { load_sentencepiece(*folder_ / "none.model"); }, {"none.model", "No such file"});
  expect_error([&] { load_sentencepiece(folder_->write("json.model", R"({"model": 1})")); },
               {"json.model", "not a SentencePiece model", "{\"model\"", "give the .model file"});
  expect_error([&] { load_sentencepiece(folder_->write("empty.model", "")); }, {"empty.model", "it is empty"});
  const std::string model = contents(*folder_ / "cpp.model");
  expect_error([&] { load_sentencepiece(folder_->write("cut.model", model.substr(0, model.size() - 20))); },
               {"cut.model"});
}

TEST_F(SentencePiece, EncodesInSeveralThreads) {
  const auto tokenizer = load_sentencepiece(*folder_ / "cpp.model");
  const std::string text = "const_iterator begin() const noexcept { return this->_M_impl; }";
  const auto expected = tokenizer->encode(text);
  std::vector<int> right(4);
  std::vector<std::thread> threads;
  for (int& count : right) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) count += tokenizer->encode(text) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, std::vector<int>(4, 50));
}

}  // namespace
}  // namespace annulus
