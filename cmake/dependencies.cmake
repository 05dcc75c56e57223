# What Annulus stands on, each from the system's packages; launch/setup.sh installs them.
find_package(Threads REQUIRED)
find_package(MPI REQUIRED COMPONENTS CXX)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)

# annulus_dependency(NAME HEADER LIBRARIES...): the target annulus::NAME of a package without CMake files of its own.
function(annulus_dependency name header)
  find_path(ANNULUS_${name}_INCLUDE ${header} REQUIRED)
  add_library(annulus_dependency_${name} INTERFACE)
  target_include_directories(annulus_dependency_${name} SYSTEM INTERFACE ${ANNULUS_${name}_INCLUDE})
  foreach(library ${ARGN})
    find_library(ANNULUS_${name}_${library} ${library} REQUIRED)
    target_link_libraries(annulus_dependency_${name} INTERFACE ${ANNULUS_${name}_${library}})
  endforeach()
  add_library(annulus::${name} ALIAS annulus_dependency_${name})
endfunction()

annulus_dependency(dnnl oneapi/dnnl/dnnl.hpp dnnl)
annulus_dependency(cli11 CLI/CLI.hpp)
annulus_dependency(sentencepiece sentencepiece_trainer.h sentencepiece sentencepiece_train)
