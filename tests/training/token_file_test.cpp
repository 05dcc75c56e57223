#include "runtime/training/token_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "runtime/training/token_file_format.h"
#include "runtime/training/token_file_writer.h"
#include "runtime/training/tokenize_files.h"
#include "runtime/training/tokenizer.h"
#include "tests/training/support.h"

namespace annulus {
namespace {

using testing::contents;
using testing::expect_error;
using testing::Random;
using testing::TemporaryFolder;

/// As large a vocabulary as a test wants.
class FakeTokenizer final : public Tokenizer {
 public:
  explicit FakeTokenizer(std::int64_t size) : size_(size) {}
  std::int64_t vocabulary_size() const override { return size_; }
  std::int32_t end_of_text() const override { return 0; }
  TextKind text_kind() const override { return TextKind::utf8; }
  std::string name() const override { return "fake"; }
  std::uint64_t fingerprint() const override { return 0x0123456789ABCDEF; }
  std::vector<std::int32_t> encode(std::string_view text) const override {
    return std::vector<std::int32_t>(text.size(), static_cast<std::int32_t>(size_ - 1));
  }
  std::string decode(std::span<const std::int32_t>) const override { return {}; }

 private:
  std::int64_t size_;
};

std::vector<std::int32_t> all_of(const TokenFile& file) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(file.size()));
  file.read(0, ids);
  return ids;
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <class T>
std::string llmc_file(std::int32_t magic, std::int32_t version, const std::vector<T>& ids) {
  std::vector<std::int32_t> header(256);
  header[0] = magic;
  header[1] = version;
  header[2] = static_cast<std::int32_t>(ids.size());
  return bytes_of(header) + bytes_of(ids);
}

TEST(TokenFile, RoundTripsIdsOfBothWidths) {
  Random random;
  for (const std::int64_t vocabulary : {257L, 65536L, 65537L, 200'000L}) {
    const TemporaryFolder folder;
    TokenFileWriter writer(folder / "t", FakeTokenizer(vocabulary), Existing::refuse);
    std::vector<std::int32_t> expected;
    for (int piece = 0; piece < 5; ++piece) {
      std::vector<std::int32_t> ids(static_cast<std::size_t>(random.below(60'000)));
      for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random.below(vocabulary));
      writer.append(ids);
      expected.insert(expected.end(), ids.begin(), ids.end());
    }
    writer.commit();
    const TokenFile file(folder / "t");
    EXPECT_EQ(all_of(file), expected);
    EXPECT_EQ(file.info().element_bytes, vocabulary <= 65536 ? 2 : 4);
    EXPECT_EQ(file.info().vocabulary_size, vocabulary);
    EXPECT_EQ(file.info().end_of_text, 0);
    EXPECT_EQ(file.info().tokenizer, "fake");
    EXPECT_EQ(file.info().tokenizer_fingerprint, 0x0123456789ABCDEFu);
    file.check(vocabulary);
    std::vector<std::int32_t> some(3);
    file.read(file.size() - 3, some);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), expected.end() - 3));
    expect_error<InternalError>([&] { file.read(file.size() - 2, some); }, {"are asked for"});
  }
}

TEST(TokenFile, LiesAsDocumented) {
  const TemporaryFolder folder;
  folder.write("a.txt", "Hi");
  tokenize_files(std::vector{folder / "a.txt"}, *make_byte_tokenizer(), folder / "t", Existing::refuse);
  const std::string file = contents(folder / "t");
  ASSERT_EQ(file.size(), 128u + 3 * 2);
  const auto number = [&](std::size_t offset, std::size_t bytes) {
    std::uint64_t value = 0;
    std::memcpy(&value, file.data() + offset, bytes);
    return value;
  };
  EXPECT_EQ(file.substr(0, 8), "ANNTOKEN");
  EXPECT_EQ(number(8, 4), 1u);
  EXPECT_EQ(number(12, 4), 2u);
  EXPECT_EQ(number(16, 8), 3u);
  EXPECT_EQ(number(24, 8), 257u);
  EXPECT_EQ(number(32, 8), 256u);
  std::uint64_t checksum = 14695981039346656037u;
  for (const std::uint64_t id : {'H', 'i', '\0'}) checksum = (checksum ^ (id ? id : 256)) * 1099511628211u;
  EXPECT_EQ(number(48, 8), checksum);
  EXPECT_EQ(file.substr(64, 6), std::string("bytes\0", 6));
  EXPECT_EQ(file.substr(128), std::string("H\0i\0\0\1", 6));
}

TEST(TokenFile, ReadsLlmcFiles) {
  const TemporaryFolder folder;
  const TokenFile narrow(folder.write("gpt2.bin", llmc_file<std::uint16_t>(20240520, 1, {50256, 11, 65535, 0})));
  EXPECT_EQ(all_of(narrow), (std::vector<std::int32_t>{50256, 11, 65535, 0}));
  EXPECT_EQ(narrow.info().tokenizer, "llm.c");
  EXPECT_EQ(narrow.info().vocabulary_size, 0);
  EXPECT_FALSE(narrow.info().checksum.has_value());
  narrow.check(65536);
  const TokenFile wide(folder.write("llama3.bin", llmc_file<std::uint32_t>(20240801, 7, {128000, 5, 70000})));
  EXPECT_EQ(all_of(wide), (std::vector<std::int32_t>{128000, 5, 70000}));
  wide.check(128256);
  expect_error([&] { wide.check(128000); }, {"llama3.bin", "token 0 has id 128000", "model.vocabulary=128000"});
  const TokenFile negative(folder.write("bad.bin", llmc_file<std::uint32_t>(20240801, 7, {1, 0xFFFFFFFF})));
  expect_error([&] { negative.check(128256); }, {"token 1 has id 4294967295"});
}

class BadTokenFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_.write("text", "some text that is long enough");
    tokenize_files(std::vector{folder_ / "text"}, *make_byte_tokenizer(), folder_ / "good", Existing::refuse);
    good_ = contents(folder_ / "good");
  }
  void expect_refused(const std::string& bytes, std::vector<std::string> parts) {
    const std::string path = folder_.write("bad", bytes);
    parts.push_back(path + ": ");
    expect_error([&] { TokenFile{path}; }, parts);
  }
  std::string changed(std::size_t offset, char byte) const {
    std::string bytes = good_;
    bytes[offset] = byte;
    return bytes;
  }
  TemporaryFolder folder_;
  std::string good_;
};

TEST_F(BadTokenFile, IsRefusedWithItsReason) {
  expect_error([&] { TokenFile(folder_ / "none"); }, {folder_ / "none", "No such file", "check the path"});
  expect_refused("PK\x03\x04 whatever",
                 {"not a token file", "50 4b 03 04", "PK..", "\"ANNTOKEN\"", "20240520", "annulus tokenize"});
  expect_refused("", {"not a token file", "it is empty"});
  expect_refused(good_.substr(0, 100), {"is cut off: 100 bytes are less than the header of 128"});
  expect_refused(good_.substr(0, good_.size() - 1),
                 {"is cut off", "30 tokens of 2 bytes", "makes 188 bytes, and it has 187", "again"});
  expect_refused(good_ + "x", {"longer than it should be", "it has 189"});
  expect_refused(changed(8, 2), {"of version 2, and version 1 is read here", "again"});
  expect_refused(changed(12, 3), {"damaged header: 3 bytes an id (2 or 4)"});
  expect_refused(changed(22, 127), {"damaged header"});
  expect_refused(changed(33, 2), {"damaged header", "end of text 512"});
  const std::string llmc = llmc_file<std::uint16_t>(20240520, 1, {1, 2, 3});
  expect_refused(llmc.substr(0, 1000), {"is cut off: 1000 bytes are less than the header of 1024"});
  expect_refused(llmc.substr(0, 1028), {"is cut off", "3 tokens of 2 bytes", "it has 1028"});
  expect_refused(llmc_file<std::uint16_t>(20240520, 7, {1}),
                 {"llm.c's magic 20240520 with version 7, and version 1 is read"});
}

TEST_F(BadTokenFile, IsFoundDamagedByItsChecksum) {
  const TokenFile file(folder_.write("bad", changed(130, 'X')));
  expect_error([&] { file.check(257); }, {folder_ / "bad", "is damaged", "checksum"});
}

TEST_F(BadTokenFile, MustSuitTheModelsVocabulary) {
  const TokenFile file(folder_ / "good");
  file.check(257);
  file.check(50257);
  expect_error([&] { file.check(256); }, {folder_ / "good", "(bytes) has a vocabulary of 257",
                                          "model.vocabulary=256 is smaller", "to at least 257"});
}

TEST(TokenizeFiles, PutsTheEndOfTextAfterEachFile) {
  const TemporaryFolder folder;
  folder.write("b.txt", "bee");
  folder.write("a.txt", "ay");
  folder.write("empty.txt", "");
  folder.write("sub/c.txt", "\xFF");
  const std::vector<std::string> globs = {folder / "**/*.txt", folder / "a.txt"};
  const auto statistics = tokenize_files(globs, *make_byte_tokenizer(), folder / "t", Existing::refuse);
  EXPECT_EQ(all_of(TokenFile(folder / "t")), (std::vector<std::int32_t>{'a', 'y', 256, 'b', 'e', 'e', 256, 255, 256}));
  EXPECT_EQ(statistics.files, 4);
  EXPECT_EQ(statistics.bytes, 6);
  EXPECT_EQ(statistics.tokens, 9);
  EXPECT_EQ(statistics.replaced, 0) << "bytes stay what they are";
  expect_error([&] { tokenize_files(globs, *make_byte_tokenizer(), folder / "t", Existing::refuse); },
               {"exists already"});
  tokenize_files(globs, *make_byte_tokenizer(), folder / "t", Existing::replace);
}

TEST(TokenizeFiles, EncodesLargeFilesInPieces) {
  const TemporaryFolder folder;
  Random random;
  std::string text;
  while (text.size() < 20'000'000) text += std::string(static_cast<std::size_t>(random.below(300)), 'x') + "\u20ac\n";
  text += std::string(100'000, 'y');  // a line longer than a piece
  folder.write("large", text);
  folder.write("small", "at the end");
  tokenize_files(std::vector{folder / "*"}, *make_byte_tokenizer(), folder / "t", Existing::refuse);
  std::vector<std::int32_t> ids = all_of(TokenFile(folder / "t"));
  ASSERT_EQ(ids.back(), 256);
  EXPECT_EQ(ids[text.size()], 256);
  EXPECT_EQ(make_byte_tokenizer()->decode(ids), text + "at the end");
}

TEST(TokenizeFiles, RoundTripsThroughSentencePiece) {
  const TemporaryFolder folder;
  const std::vector<std::string> globs = {"/usr/include/c++/*/bits/stl_[aefm]*.h"};
  train_sentencepiece({.globs = globs, .vocabulary_size = 500}, folder / "m", Existing::refuse);
  folder.write("zz.h", "bad \xC3( text");
  const auto tokenizer = load_sentencepiece(folder / "m");
  const auto statistics =
      tokenize_files(std::vector{globs[0], folder / "zz.h"}, *tokenizer, folder / "t", Existing::refuse);
  EXPECT_EQ(statistics.replaced, 1);
  const TokenFile file(folder / "t");
  file.check(500);
  EXPECT_EQ(file.info().tokenizer_fingerprint, tokenizer->fingerprint());
  EXPECT_EQ(file.size(), statistics.tokens);
  const auto ids = all_of(file);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), tokenizer->end_of_text()), statistics.files);
  const std::string text = tokenizer->decode(ids);
  EXPECT_EQ(std::ssize(text), statistics.bytes + 2) << "one byte became the three of U+FFFD";
  EXPECT_NE(text.find("bad \uFFFD( text"), std::string::npos);
}

TEST(TokenizeFiles, LeavesNothingBehindWhenItFails) {
  const TemporaryFolder folder;
  folder.write("empty.txt", "");
  const auto tokenize = [&](const std::string& glob, const std::string& output) {
    tokenize_files(std::vector{folder / glob}, *make_byte_tokenizer(), folder / output, Existing::refuse);
  };
  expect_error([&] { tokenize("*.md", "t"); }, {folder / "*.md", "matches no file"});
  expect_error([&] { tokenize("*.txt", "t"); }, {folder / "*.txt", "all of them are empty"});
  expect_error([&] { tokenize("*.txt", "no/t"); }, {folder / "no/t", "create the folder"});
  EXPECT_EQ(folder.names(), std::vector<std::string>{"empty.txt"});
}

TEST(TokenizeFiles, NoticesIdsThatTheTokenizerCannotHave) {
  const TemporaryFolder folder;
  TokenFileWriter writer(folder / "t", FakeTokenizer(300), Existing::refuse);
  for (const std::int32_t id : {300, -1}) {
    expect_error<InternalError>([&] { writer.append(std::vector{id}); },
                                {"vocabulary of 300", "id " + std::to_string(id)});
  }
}

}  // namespace
}  // namespace annulus
