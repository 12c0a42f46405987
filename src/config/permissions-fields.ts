import type { FieldsOf } from './field.ts'
import { permissionsType } from './permissions/setting.ts'
import { flag } from './values.ts'

/** What the server may touch. */
export const permissionsFields: FieldsOf<'permissions' | 'requirePermissions'> = {
  permissions: {
    file: 'permissions',
    type: permissionsType,
    absent: undefined,
    means: 'the profile of the MCPServer document, if there is one; else nothing is confined',
    flag: 'permissions',
    placeholder: 'PROFILE',
    doc: 'What the server may touch: none, network, full-access or the file of a permission profile. `none`: the files that every program needs, and no network. `network` (or `network-only`): any public address beside them. `full-access`: everything but the files of the sidecar; its ports can be reached. A file holds a profile as it is written here, in the form of ToolHive, or as `permissionProfile` of an MCPServer.',
  },
  requirePermissions: {
    file: 'requirePermissions',
    type: flag,
    default: false,
    variable: 'MCP_SIDECAR_REQUIRE_PERMISSIONS',
    doc: 'Refuse to start without a choice of permissions, on a loopback address, too. The container image sets the variable.',
  },
}
