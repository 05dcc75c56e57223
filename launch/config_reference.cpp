#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "launch/config_schema.h"

namespace annulus {

std::string configuration_reference() {
  std::string page =
      "# Configuration\n\n"
      "<!-- Written by `annulus info --configuration-reference`; do not edit. -->\n\n"
      "A run's configuration is a JSON file; `//` and `/* */` comments are allowed. Every setting may be left out: its "
      "default\n"
      "stands below. On the command line, `--set PATH=VALUE` replaces a setting, as in `--set parallel.tp=2`. Unknown "
      "settings,\n"
      "values out of range and settings that do not fit together are refused, all of them at once, before anything "
      "runs.\n"
      "The resolved configuration, with every 0 that stands for \"what follows from the rest\" filled in, is written "
      "to the run's\n"
      "folder as `config.json`. Examples: [launch/recipes](../launch/recipes).\n";
  const RunConfig defaults;
  for (const ConfigSection& section : run_config_schema()) {
    page += fmt::format("\n## {}\n\n{}\n\n| setting | type | default | meaning |\n|---|---|---|---|\n", section.path,
                        section.doc);
    for (const ConfigField& field : section.fields) {
      const std::string values = field.values.empty() ? "" : (field.type == "one of" ? " " : ", ") + field.values;
      const std::string unit = field.unit.empty() ? "" : fmt::format(" [{}]", field.unit);
      page += fmt::format("| `{}` | {}{} | `{}` | {}{} |\n", field.path, field.type, values,
                          field.write(defaults).dump(), field.doc, unit);
    }
  }
  return page;
}

}  // namespace annulus
