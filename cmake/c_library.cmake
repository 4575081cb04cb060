# The C library, self-contained: shared, or static with -DBUILD_SHARED_LIBS=OFF. A wheel does not
# carry it.
option(BUILD_SHARED_LIBS "Build the C library as a shared one" ON)
set(api csrc/api/c)
add_library(gemtp
  ${api}/boundary.cc
  ${api}/constraint.cc
  ${api}/model.cc
  ${api}/session.cc
  ${api}/text.cc
  $<TARGET_OBJECTS:gemtp_core>
)
add_library(gemtp::gemtp ALIAS gemtp)
target_include_directories(gemtp PRIVATE csrc PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/include> $<INSTALL_INTERFACE:include>)
target_link_libraries(gemtp PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
target_compile_definitions(gemtp PRIVATE GEMTP_BUILDING)

file(STRINGS csrc/include/gemtp.h abi REGEX "^#define GEMTP_ABI_VERSION [0-9]+$")
string(REGEX MATCH "[0-9]+$" abi "${abi}")
set_target_properties(gemtp PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${abi} PUBLIC_HEADER csrc/include/gemtp.h)

# Nothing but the ABI is visible, not even what the compiler makes of the standard library's
# templates.
if(BUILD_SHARED_LIBS)
  target_compile_definitions(gemtp PUBLIC GEMTP_SHARED)
  if(APPLE)
    # zig's linker has no such option.
    include(CheckLinkerFlag)
    check_linker_flag(CXX "-Wl,-exported_symbol,_gemtp_*" GEMTP_CAN_CHOOSE_SYMBOLS)
    if(GEMTP_CAN_CHOOSE_SYMBOLS)
      target_link_options(gemtp PRIVATE "-Wl,-exported_symbol,_gemtp_*")
    endif()
  elseif(NOT WIN32)
    set(symbols ${CMAKE_CURRENT_BINARY_DIR}/gemtp.map)
    file(WRITE ${symbols} "GEMTP_${abi} {\n  global: gemtp_*;\n  local: *;\n};\n")
    target_link_options(gemtp PRIVATE "-Wl,--version-script=${symbols}")
    # Clang has the functions of its sanitizers in the program, which the library then needs.
    if(NOT (GEMTP_SANITIZE AND CMAKE_CXX_COMPILER_ID MATCHES "Clang"))
      target_link_options(gemtp PRIVATE "-Wl,-z,defs")
    endif()
    set_target_properties(gemtp PROPERTIES LINK_DEPENDS ${symbols})
  endif()
endif()

if(GEMTP_BUILD_PYTHON)
  set_target_properties(gemtp PROPERTIES EXCLUDE_FROM_ALL ON)
  return()
endif()

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/gemtp)
install(TARGETS gemtp EXPORT gemtp
  PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT gemtp NAMESPACE gemtp:: FILE gemtpTargets.cmake DESTINATION ${package_dir})
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/gemtpConfig.cmake "include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(\${CMAKE_CURRENT_LIST_DIR}/gemtpTargets.cmake)
")
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/gemtpConfigVersion.cmake
  COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gemtpConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/gemtpConfigVersion.cmake DESTINATION ${package_dir})

# Relative to where it lies, so that the installed tree can be moved.
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH up "/${pkgconfig_dir}" "/")
set(private_libs "-lstdc++ -lm -ldl -pthread")
if(APPLE)
  set(private_libs "-lc++")
endif()
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/gemtp.pc "prefix=\${pcfiledir}/${up}
Name: gemtp
Description: Gemma 4 with its multi-token-prediction drafter
Version: ${PROJECT_VERSION}
Cflags: -I\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}
Libs: -L\${prefix}/${CMAKE_INSTALL_LIBDIR} -lgemtp
Libs.private: ${private_libs}
")
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gemtp.pc DESTINATION ${pkgconfig_dir})
