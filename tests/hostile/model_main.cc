// Writes the tests' tiny model with random weights, for processes that need a GGUF file: runnel-test-model FILE
#include <iostream>

#include "tests/testing/bigram_model.h"

int main(int argc, char** argv) {
  if (argc != 2 || !runnel::testing::WriteRandomModel(argv[1], 1)) {
    std::cerr << "usage: runnel-test-model FILE\n";
    return 1;
  }
  return 0;
}
