import type { SettingKey, ValueOf } from './field.ts'
import type { Setting } from './layer.ts'

/** The values as they were given, each with its origin. */
export interface Given {
  readonly value: <K extends SettingKey>(key: K) => ValueOf<K>
  readonly setting: (key: SettingKey) => Setting
}

/** What nobody gave. */
export const nowhere: Setting = {
  value: undefined,
  where: 'default',
  at: () => 'default',
  given: () => undefined,
}

export function givenBy(settings: ReadonlyMap<SettingKey, Setting>): Given {
  return {
    value: <K extends SettingKey>(key: K) => settings.get(key)?.value as ValueOf<K>,
    setting: (key) => settings.get(key) ?? nowhere,
  }
}
