// Drives a fuzz target without libFuzzer (GCC): runs every file of a corpus unchanged, then mutations of them from a
// fixed seed, until a number of runs or a time limit is reached. It finds less than libFuzzer, but the same on every
// run, and works with the sanitizers.
//
//   fuzz_target CORPUS_DIR [RUNS] [SECONDS]

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kMaxInput = 64 * 1024;

void RunOne(const std::string& input) {
  // A copy of the exact size, so that AddressSanitizer sees a read past its end.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

std::vector<std::string> ReadCorpus(const char* directory) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> corpus;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

class Mutator {
 public:
  explicit Mutator(const std::vector<std::string>* corpus) : corpus_(*corpus) {}

  std::string Next() {
    std::string text = corpus_[Below(corpus_.size())];
    for (size_t n = 1 + Below(4); n > 0; n--) Mutate(&text);
    text.resize(std::min(text.size(), kMaxInput));
    return text;
  }

 private:
  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  void Mutate(std::string* text) {
    // Bytes with a meaning in one of the parsers.
    static constexpr char kSpecial[] = "\0\n\r\"\\{}[]:,.-+eE09_ \x7f\x80\xbf\xc0\xed\xf4\xff";
    const size_t at = Below(text->size() + 1);
    switch (Below(6)) {
      case 0:  // Flip a bit.
        if (at < text->size()) (*text)[at] = static_cast<char>((*text)[at] ^ (1 << Below(8)));
        break;
      case 1:
        text->insert(at, 1, kSpecial[Below(sizeof(kSpecial) - 1)]);
        break;
      case 2:
        text->erase(at, 1 + Below(8));
        break;
      case 3:  // Repeat a part, which also nests.
        text->insert(at, text->substr(Below(text->size()), 1 + Below(64)));
        break;
      case 4: {  // Join with another.
        const std::string& other = corpus_[Below(corpus_.size())];
        text->replace(at, std::string::npos, other.substr(Below(other.size() + 1)));
        break;
      }
      case 5:
        if (at < text->size()) (*text)[at] = kSpecial[Below(sizeof(kSpecial) - 1)];
        break;
    }
  }

  const std::vector<std::string>& corpus_;
  std::mt19937_64 random_{20261123};
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s CORPUS_DIR [RUNS] [SECONDS]\n", argv[0]);
    return 2;
  }
  const long runs = argc > 2 ? std::atol(argv[2]) : 20'000;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(argc > 3 ? std::atol(argv[3]) : 5);
  const std::vector<std::string> corpus = ReadCorpus(argv[1]);
  if (corpus.empty()) {
    std::fprintf(stderr, "%s: no files in %s\n", argv[0], argv[1]);
    return 1;
  }
  for (const std::string& input : corpus) RunOne(input);
  Mutator mutator(&corpus);
  long done = 0;
  for (; done < runs && std::chrono::steady_clock::now() < deadline; done++) RunOne(mutator.Next());
  std::printf("%zu files, %ld mutations\n", corpus.size(), done);
  return 0;
}
