#include "launch/command.h"

namespace annulus {

const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"tokenize", "Text files to a token file, training a tokenizer where asked to", run_tokenize},
      {"info", "Versions, processors and memory; the configuration reference", run_info},
  };
  return table;
}

}  // namespace annulus
