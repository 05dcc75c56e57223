# Run at every build: writes OUTPUT, which tells the commit of SOURCE, where it has changed.
cmake_minimum_required(VERSION 3.25)
find_program(GIT git)
set(commit "unknown")
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE} describe --always --dirty --abbrev=40 --exclude=*
                  OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(commit "${described}")
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT
"namespace annulus {
extern const char* const kCommit;
const char* const kCommit = \"@commit@\";
}  // namespace annulus
")
